"""A server for the demo alone: in this process, on a free port and a temporary data dir."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from filelock import FileLock, Timeout

from shared_context_server.auth.secrets import ensure_secrets
from shared_context_server.cli.addresses import base_url
from shared_context_server.cli.demo.agents import Failed
from shared_context_server.cli.demo.run import Demo
from shared_context_server.cli.demo.targets import Target
from shared_context_server.settings import make_settings

_HOST: Final = "127.0.0.1"
_PREFIX: Final = "scs-demo-"
_LOCK: Final = "demo.lock"
_JOIN_S = 20.0


def run_on_own_server(demo: Demo) -> None:
    """Run the demo and the server until the first of them ends. Raises Failed.

    Both are one process, so that neither outlives the other, however it ends.
    """
    with _temporary_data_dir() as data_dir:
        # The environment may configure another server, so nothing of it is used.
        given = {"data_dir": data_dir, "http_host": _HOST, "http_port": 0, "log_level": "WARNING"}
        settings, _ = ensure_secrets(make_settings([], given))
        assert settings.api_key is not None
        key = settings.api_key.get_secret_value()
        failures: list[Failed] = []

        def run(port: int) -> None:
            try:
                demo.run(Target(base_url(_HOST, port), key, str(data_dir), is_temporary=True))
            except Failed as exc:
                failures.append(exc)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)  # ends the server

        threads: list[threading.Thread] = []

        def start(port: int) -> None:
            _stop_on_signals(demo)
            threads.append(threading.Thread(target=run, args=(port,), daemon=True))
            threads[0].start()

        # It takes seconds to import, which the help and the completion of the command do not need.
        from shared_context_server.cli.http import serve_http  # noqa: PLC0415

        serve_http(settings, overrides={}, is_reloading=False, on_start=start)
        demo.stop()
        for thread in threads:
            thread.join(_JOIN_S)
    if failures:
        raise failures[0]


def _stop_on_signals(demo: Demo) -> None:
    """Stop the demo with the server, so that its agents do not take the server's end for a failure."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        before = signal.getsignal(number)

        def stop(number: int, frame: FrameType | None, before: Any = before) -> None:
            demo.stop()
            before(number, frame)

        signal.signal(number, stop)


@contextmanager
def _temporary_data_dir() -> Iterator[Path]:
    """A directory that is removed at the end of the block. Those of killed demos are removed first."""
    parent = Path(tempfile.gettempdir())
    _remove_leftovers(parent)
    # Under another name until it is locked: a demo that starts now would take it for a leftover.
    made = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=parent))
    with FileLock(made / _LOCK):
        directory = made.rename(parent / made.name.removeprefix("."))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _remove_leftovers(parent: Path) -> None:
    for directory in parent.glob(f"{_PREFIX}*"):
        try:
            if directory.is_symlink() or directory.stat().st_uid != os.geteuid():
                continue
            with FileLock(directory / _LOCK, timeout=0):
                shutil.rmtree(directory, ignore_errors=True)
        except (OSError, Timeout):
            continue  # in use, or removed by another demo
