"""Read single keys from a terminal."""

from __future__ import annotations

import os
import select
import signal
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
    """`wait` also works without a terminal: then it only waits. `resized` can be read when the size of
    the terminal has changed."""

    def __init__(self, descriptor: int | None, resized: int | None = None) -> None:
        self._descriptor = descriptor
        self._resized = resized

    def wait(self, timeout_s: float) -> str | None:
        """Return the next key, or None if there is none in time, or the terminal was resized. Several
        keys at once count as one."""
        readable = [one for one in (self._descriptor, self._resized) if one is not None]
        ready, _, _ = select.select(readable, [], [], timeout_s)
        if self._resized in ready:
            os.read(self._resized, _READ_BYTES)
        if self._descriptor not in ready:
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
    with _watch_size() as resized:
        try:
            tty.setcbreak(descriptor)
            yield Keyboard(descriptor, resized)
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _watch_size() -> Generator[int]:
    """A descriptor that can be read when the size of the terminal has changed, for a with block."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)  # when it is full there is something to read anyway
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    handler = signal.signal(signal.SIGWINCH, lambda *_: None)  # without one nothing is written
    try:
        yield reader
    finally:
        signal.signal(signal.SIGWINCH, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(reader)
        os.close(writer)
