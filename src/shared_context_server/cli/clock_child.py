"""`serve --with-clock`: the clock daemon as a child of the server, started again when it dies."""

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
LIVED_WELL_S = 10.0  # after so long the delays begin anew
LOOK_S = 2.0  # how often to look whether another server's daemon is still there
STOP_S = 5.0  # the daemon ends within a tick; a sensor command may need a moment
REFUSED = 1  # the daemon's exit code when another one holds the prefix, or it cannot run
MISTAKEN = 2  # the daemon's exit code for options it cannot use: trying again would not help

_log = get_logger("clock")


@contextmanager
def supervised_clock(settings: Settings) -> Iterator[None]:
    """Run the clock daemon while the block runs. Raises ConfigurationError for wrong options.

    Where another daemon serves the prefix, that one is used, and replaced once it has gone. The
    child ends with this process, however that ends.
    """
    configure_logs(settings)
    reader = ClockReader(settings.clock_prefix, owner=settings.clock_owner)
    supervisor = _Supervisor(daemon_command(settings), reader)
    supervisor.start()
    try:
        yield
    finally:
        supervisor.stop()


class _Supervisor:
    def __init__(self, command: list[str], reader: ClockReader) -> None:
        self._command = [*command, "--until-eof"]
        self._reader = reader
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # a child that is started is either seen by stop() or not
        self._child: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._run, name="clock", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the child, and wait until it has cleaned up."""
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
            if code == MISTAKEN:
                _log.error("the clock daemon cannot run with these options")
                return
            if code == REFUSED and self._is_served():
                _log.info("another clock daemon serves this prefix", prefix=self._reader.prefix)
                self._wait_for_its_end()
                delay_s = BACK_OFF_S[0]
                continue
            if time.monotonic() - started_s > LIVED_WELL_S:
                delay_s = BACK_OFF_S[0]
            _log.warning("the clock daemon has ended", code=code, again_in_s=delay_s)
            self._stopping.wait(delay_s)
            delay_s = min(2 * delay_s, longest_s)

    def _run_child(self) -> int:
        """The exit code of one child, whose lines go into our log. 0 if it was not started."""
        with self._lock:
            if self._stopping.is_set():
                return 0
            self._child = child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,  # ends with us, and the child with it
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # a terminal's Ctrl-C is for the server, which ends the child
            )
        with child:
            assert child.stdout is not None
            for line in child.stdout:
                _log_line(line.rstrip())
            # The child is waited for with its input open: it ends for its own reason.
            return child.wait()

    def _is_served(self) -> bool:
        try:
            return not self._reader.now().stale
        except ClockError:
            return False

    def _wait_for_its_end(self) -> None:
        while not self._stopping.wait(LOOK_S) and self._is_served():
            pass


def _log_line(line: str) -> None:
    """A line of the daemon: date, time, level and text; or what is not from its logger."""
    parts = line.split(" ", 3)
    if len(parts) == 4 and parts[2] in ("WARNING", "ERROR", "CRITICAL"):
        _log.warning(parts[3])
    elif len(parts) == 4 and parts[2] == "INFO":
        _log.info(parts[3])
    else:
        _log.info(line)
