"""Sensor source `exec:COMMAND`: a command that prints one JSON object."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading

from shared_context_server.clock.errors import OptionError, SourceError
from shared_context_server.clock.sources.channels import Channels, take_channels

TIMEOUT_S = 10.0
OUTPUT_LIMIT = 64 * 1024


class CommandSource:
    """Runs the command for each reading, without a shell, and parses its output.

    A command that runs longer than 10 s, or prints more than 64 KiB, is killed with all processes
    that it started.
    """

    def __init__(self, command: str, timeout_s: float = TIMEOUT_S) -> None:
        self.name = f"exec:{command}"
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False
        try:
            self._arguments = shlex.split(command)
        except ValueError as exc:
            raise OptionError("--source", f"{self.name!r}: {exc}") from exc
        if not self._arguments:
            raise OptionError("--source", "exec: needs a command")

    def read(self) -> Channels:
        output = self._run()
        try:
            given = json.loads(output)
        except ValueError as exc:
            raise SourceError(self.name, f"its output is not JSON: {output[:80]!r}") from exc
        return take_channels(given, self.name)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                _kill(self._process)

    def _run(self) -> bytes:
        process = self._start()
        timer = threading.Timer(self._timeout_s, _kill, [process])
        timer.daemon = True
        timer.start()
        try:
            assert process.stdout is not None
            with process.stdout as stdout:
                output = stdout.read(OUTPUT_LIMIT + 1)
            if len(output) > OUTPUT_LIMIT:
                _kill(process)
            code = process.wait()
        finally:
            was_in_time = timer.is_alive()
            timer.cancel()
            with self._lock:
                self._process = None
        if not was_in_time:
            raise SourceError(self.name, f"took longer than {self._timeout_s:g} s")
        if len(output) > OUTPUT_LIMIT:
            raise SourceError(self.name, f"printed more than {OUTPUT_LIMIT} bytes")
        if code != 0:
            raise SourceError(self.name, f"ended with exit status {code}")
        return output

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._is_closed:
                raise SourceError(self.name, "is closed")
            try:
                self._process = subprocess.Popen(
                    self._arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    start_new_session=True,
                )
            except OSError as exc:
                raise SourceError(self.name, str(exc)) from exc
            return self._process


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the command and, on POSIX, all processes of its session."""
    if process.returncode is not None:
        return
    if sys.platform == "win32":
        process.kill()
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
