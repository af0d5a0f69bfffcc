"""Runs several worker processes on one socket, under uvicorn's supervisor."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker, util
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from starlette.types import Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import multiprocess

from shared_context_server.errors import ConfigurationError
from shared_context_server.observability.logs import configure_logs
from shared_context_server.server import LifespanApp
from shared_context_server.settings import Settings
from shared_context_server.storage import StorageId

START_S = 60.0  # until all workers serve; imports on a busy machine take seconds
ANSWER_S = 20  # until a restarted worker serves, and until a worker answers the supervisor
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client reads it when it is imported
# The process that workers are forked from blocks these. A signal to all processes of a server (systemd
# sends one) must not end it before the workers and the supervisor: it reports when a worker has ended.
ENDING_SIGNALS = {signal.SIGTERM, signal.SIGHUP}

# The path of the socket at which workers are asked for may have 103 bytes, 32 of them behind this.
MAX_TEMP_PATH_BYTES = 71
PACKAGE = "shared_context_server."
IMPORTED_LAST = "shared_context_server.cli.worker_origin"
_forking = multiprocessing.get_context("forkserver")
# Python 3.11.0 would else take a socket that every user of the machine may use: CVE-2022-42919.
util.abstract_sockets_supported = False  # type: ignore[misc]  # Final, but meant for this


def serve_with_workers(
    settings: Settings,
    expected: StorageId | None,
    listener: socket.socket,
    announce: Callable[[], None],
    options: dict[str, Any],
) -> None:
    """Serve until SIGTERM or SIGINT. `announce` is called once, when all workers serve.

    The workers use only the `expected` storage. A worker that dies is replaced; SIGHUP replaces all,
    one after the other. If a worker cannot start, all end with uvicorn's exit code. `options` are
    options of uvicorn's configuration. Raises ConfigurationError if the path of the directory for
    temporary files is too long for a socket.
    """
    if len(os.fsencode(tempfile.gettempdir())) > MAX_TEMP_PATH_BYTES:
        raise ConfigurationError(
            f"TMPDIR: {tempfile.gettempdir()} is too long for workers, which need a socket there; "
            f"name a directory whose path has at most {MAX_TEMP_PATH_BYTES} bytes."
        )
    config = _WorkerConfig(
        settings,
        expected,
        options | {"workers": settings.workers, "timeout_worker_healthcheck": ANSWER_S},
    )
    # What this process has imported by now: the program with its one storage backend.
    imported = [name for name in sys.modules if name.startswith(PACKAGE)]
    _forking.set_forkserver_preload([*imported, IMPORTED_LAST])
    multiprocess.Process = Worker  # type: ignore[misc]  # uvicorn has no setting for it
    with tempfile.TemporaryDirectory(prefix="scs-metrics-") as metrics_dir:
        # Only for the workers: this process has imported prometheus_client already.
        os.putenv(METRICS_VARIABLE, metrics_dir)
        try:
            supervisor = _Supervisor(config, listener, announce, Path(metrics_dir))
            supervisor.run()
        finally:
            os.unsetenv(METRICS_VARIABLE)
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        sys.exit(STARTUP_FAILURE)


class Worker(multiprocess.Process):
    """A worker that is forked from a process which has imported the program, and does nothing else.

    So a worker is there at once, also the one that replaces another, and all share the memory of
    what is imported.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self.process = _forking.Process(target=_serve, args=(self, sockets))  # type: ignore[assignment]

    def start(self) -> None:
        with _inheriting_blocked(ENDING_SIGNALS):
            super().start()
        # Only the worker has this end now, so whoever waits for its answer hears when it has died.
        self.child_conn.close()


@contextmanager
def _inheriting_blocked(signals: set[signal.Signals]) -> Iterator[None]:
    """The process that workers are forked from, if it is started here, blocks these signals."""
    resource_tracker.ensure_running()  # it unblocks SIGTERM when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(worker: Worker, sockets: list[socket.socket]) -> None:
    """The life of a worker, in its process."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
    worker.config.configure_logging()
    with suppress(KeyboardInterrupt):  # uvicorn raises SIGINT once more when it has ended
        worker.target(sockets)


class _Supervisor(multiprocess.Multiprocess):
    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        announce: Callable[[], None],
        metrics_dir: Path,
    ) -> None:
        super().__init__(config, [listener])
        self._announce = announce
        self._metrics_dir = metrics_dir
        self._pids: set[int | None] = set()

    def init_processes(self) -> None:
        super().init_processes()
        if self._is_everyone_ready():
            self._announce()

    def keep_subprocess_alive(self) -> None:
        super().keep_subprocess_alive()
        pids = {process.pid for process in self.processes}
        for pid in self._pids - pids:
            # Removes its gauges and keeps its counters.
            mark_process_dead(pid, str(self._metrics_dir))  # type: ignore[no-untyped-call]  # theirs
        self._pids = pids

    def _is_everyone_ready(self) -> bool:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and not self.should_exit.is_set():
            if not all(process.process.is_alive() for process in self.processes):
                return False
            if all(process.is_ready(timeout=1) for process in self.processes):
                return True
            self.handle_signals()
            self.should_exit.wait(0.1)
        return False


class _WorkerConfig(uvicorn.Config):
    """Created in the supervisor, used in the workers."""

    def __init__(
        self, settings: Settings, expected: StorageId | None, options: dict[str, Any]
    ) -> None:
        self._settings = settings
        super().__init__(_WorkerApp(settings, expected), **options)

    def configure_logging(self) -> None:
        """Called first in each new process."""
        configure_logs(self._settings)
        super().configure_logging()  # no access log


class _WorkerApp(LifespanApp):
    """Stops waiting calls as soon as a signal arrives, because uvicorn's shutdown waits for them. Also
    stops if the supervisor has died."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for sig in (signal.SIGTERM, signal.SIGINT):
                self._stop_first(sig)
            supervisor = multiprocessing.parent_process()
            if supervisor is not None:
                threading.Thread(target=_end_after, args=(supervisor,), daemon=True).start()
        await super().__call__(scope, receive, send)

    def _stop_first(self, sig: signal.Signals) -> None:
        handle_exit = signal.getsignal(sig)  # uvicorn's

        def handle(number: int, frame: FrameType | None) -> None:
            self.stop()
            if callable(handle_exit):
                handle_exit(number, frame)

        signal.signal(sig, handle)


def _end_after(supervisor: BaseProcess) -> None:
    wait([supervisor.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
