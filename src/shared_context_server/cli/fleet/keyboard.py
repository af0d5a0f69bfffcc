"""Read single keys from a terminal."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Generator
from contextlib import contextmanager

UP, DOWN = "up", "down"
PAGE_UP, PAGE_DOWN = "page up", "page down"
END = "end"
"""The terminal was closed."""

_SEQUENCES = {
    b"\x1b[A": UP,
    b"\x1bOA": UP,
    b"\x1b[B": DOWN,
    b"\x1bOB": DOWN,
    b"\x1b[5~": PAGE_UP,
    b"\x1b[6~": PAGE_DOWN,
}
_READ_BYTES = 64


class Keyboard:
    """`wait` also works without a terminal: then it only waits."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def wait(self, timeout_s: float) -> str | None:
        """Return the next key, or None if there is none in time. Several keys at once count as one."""
        readable = [] if self._descriptor is None else [self._descriptor]
        ready, _, _ = select.select(readable, [], [], timeout_s)
        if not ready or self._descriptor is None:
            return None
        data = os.read(self._descriptor, _READ_BYTES)
        if not data:
            return END
        found = _SEQUENCES.get(data)
        return found if found is not None else data.decode("ascii", "ignore")[:1].lower()


@contextmanager
def open_keyboard() -> Generator[Keyboard]:
    """Read keys without echo and without waiting for the end of a line, for a with block. The state
    of the terminal is restored after it. Ctrl-C stays what it is."""
    if not sys.stdin.isatty():
        yield Keyboard(None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keyboard(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
