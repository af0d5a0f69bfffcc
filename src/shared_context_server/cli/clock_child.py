"""Runs the clock daemon as a child process and restarts it when it dies (`serve --with-clock`)."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from shared_context_server.cli.clock import daemon_command
from shared_context_server.clock import ClockError, ClockReader
from shared_context_server.observability.logs import configure_logs, get_logger
from shared_context_server.settings import Settings

BACK_OFF_S = (0.2, 30.0)  # the first delay and the longest; each is twice the one before
STABLE_AFTER_S = 10.0  # after running for this long, the delays start again
CHECK_INTERVAL_S = 2.0  # how often to check whether another server's daemon still runs
STOP_S = 5.0  # the daemon ends within a tick; a sensor command may take longer
REFUSED = 1  # the daemon's exit code when another one holds the prefix, or it cannot run
INVALID_OPTIONS = 2  # the daemon's exit code for invalid options: a restart would not help

_log = get_logger("clock")


@contextmanager
def supervised_clock(settings: Settings) -> Iterator[None]:
    """Run the clock daemon while the block runs. Raises ConfigurationError for wrong options.

    If another daemon runs under the prefix, that one is used; a child is started when it ends. The
    child ends with this process, even after a crash.
    """
    configure_logs(settings)
    reader = ClockReader(settings.clock_prefix, owner=settings.clock_owner)
    supervisor = _Supervisor(daemon_command(settings, until_eof=True), reader)
    supervisor.start()
    try:
        yield
    finally:
        supervisor.stop()


class _Supervisor:
    def __init__(self, command: list[str], reader: ClockReader) -> None:
        self._command = command
        self._reader = reader
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # so that stop() sees every child that is started
        self._child: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._run, name="clock", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop the child and wait until it has cleaned up."""
        with self._lock:
            self._stopping.set()
            if self._child is not None:
                self._child.terminate()
        self._thread.join(STOP_S)
        if self._thread.is_alive() and self._child is not None:
            self._child.kill()
            self._thread.join(STOP_S)
        self._reader.close()

    def _run(self) -> None:
        delay_s, longest_s = BACK_OFF_S
        while not self._stopping.is_set():
            started_s = time.monotonic()
            code = self._run_child()
            if self._stopping.is_set():
                return
            if code == INVALID_OPTIONS:
                _log.error("the clock daemon cannot run with these options")
                return
            if code == REFUSED and self._is_another_running():
                _log.info("another clock daemon serves this prefix", prefix=self._reader.prefix)
                self._wait_while_another_runs()
                delay_s = BACK_OFF_S[0]
                continue
            if time.monotonic() - started_s > STABLE_AFTER_S:
                delay_s = BACK_OFF_S[0]
            _log.warning("the clock daemon has ended", code=code, again_in_s=delay_s)
            self._stopping.wait(delay_s)
            delay_s = min(2 * delay_s, longest_s)

    def _run_child(self) -> int:
        """Run one child and log its output. Return its exit code, or 0 if it was not started."""
        with self._lock:
            if self._stopping.is_set():
                return 0
            self._child = child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,  # closes when this process ends, which stops the child
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C stops the server, which then stops the child
            )
        with child:
            assert child.stdout is not None
            for line in child.stdout:
                _log_line(line.rstrip())
            # Its input stays open meanwhile: closing it would stop the child.
            return child.wait()

    def _is_another_running(self) -> bool:
        try:
            return not self._reader.now().stale
        except ClockError:
            return False

    def _wait_while_another_runs(self) -> None:
        while not self._stopping.wait(CHECK_INTERVAL_S) and self._is_another_running():
            pass


def _log_line(line: str) -> None:
    """Log a line of the daemon. A line of its logger has date, time, level and text."""
    parts = line.split(" ", 3)
    if len(parts) == 4 and parts[2] in ("WARNING", "ERROR", "CRITICAL"):
        _log.warning(parts[3])
    elif len(parts) == 4 and parts[2] == "DEBUG":
        _log.debug(parts[3])
    elif len(parts) == 4 and parts[2] == "INFO":
        _log.info(parts[3])
    else:
        _log.info(line)
