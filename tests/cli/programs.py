"""Runs commands in the process of the tests, and on terminals."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from shared_context_server.cli import main
from tests.cli.conftest import COMMAND, PATIENCE_S, STOP_S

# Makes the terminal on stdin the controlling one, so that Ctrl-C reaches the program.
_ON_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])\n"
)


class Answer(NamedTuple):
    code: int
    out: str
    err: str


class Program:
    """The program with one environment, run in this process."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
        env: dict[str, str],
    ) -> None:
        self._monkeypatch = monkeypatch
        self._capfd = capfd
        for name in [name for name in os.environ if name.startswith("SCS_")]:
            monkeypatch.delenv(name)
        for name, value in env.items():
            monkeypatch.setenv(name, value)

    def __call__(self, *arguments: str) -> Answer:
        self._capfd.readouterr()
        self._monkeypatch.setattr(sys, "argv", ["scs", *arguments])
        code = 0
        try:
            main()
        except SystemExit as exc:
            code = exc.code if isinstance(exc.code, int) else 0
        said = self._capfd.readouterr()
        return Answer(code, said.out, said.err)


class Terminal:
    """A program on a terminal of its own. `shown` is all that it has written, raw."""

    def __init__(self, arguments: list[str], env: dict[str, str], cwd: Path) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        self._slave = slave  # kept open, so that its state can be read when the program has ended
        self.state_before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, *COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**env, "TERM": "xterm-256color"},
            cwd=cwd,
            start_new_session=True,
        )
        self.shown = ""

    @property
    def state(self) -> list[object]:
        return termios.tcgetattr(self._slave)

    def wait_for(self, pattern: str) -> None:
        """Read until the pattern is found in what is shown."""
        deadline = time.monotonic() + PATIENCE_S
        while re.search(pattern, self.shown) is None:
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} is not in {self.shown!r}"
            self._read(left)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def resize(self, *, rows: int, columns: int) -> None:
        """Change its size, and forget what was shown."""
        self.shown = ""
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait(self) -> int:
        """Wait for the end of the program; its exit code."""
        code = self.process.wait(STOP_S)
        while self._read(0):
            pass
        return code

    def _read(self, timeout_s: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], timeout_s)
        if ready:
            self.shown += os.read(self._master, 65_536).decode()
        return bool(ready)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_S)
        os.close(self._master)
        os.close(self._slave)


@contextlib.contextmanager
def open_terminal(*arguments: str, env: dict[str, str], cwd: Path) -> Iterator[Terminal]:
    terminal = Terminal(list(arguments), env, cwd)
    try:
        yield terminal
    finally:
        terminal.close()
