"""Run long computations in short slices, so that the event loop is not blocked.

A computation is a generator that yields often. Its first slice runs on the loop: most end within
it, sooner than a thread would start. The rest runs in one thread, which all computations of the
process share in turns. There is one thread only, because each further thread that runs Python code
makes the event loop wait longer for the interpreter. While it runs, threads that wait for the
interpreter, the event loop and the writer of SQLite, get it ten times as soon as usual.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")

Work = Generator[None, None, T]

FIRST_SLICE_S = 0.0005
SHORT_CHARS = 2_000  # some milliseconds at most: text without spaces takes 1 µs a letter
SLICE_S = 0.01
SWITCH_INTERVAL_S = 0.0005  # while a slice runs in the thread; the interpreter's default is 5 ms

_thread = ThreadPoolExecutor(1, thread_name_prefix="slices")


async def run_in_slices(work: Work[T], ends_at: float, *, chars: int = 0) -> T | None:
    """Return the work's result; None if it has not ended when time.monotonic() passes `ends_at`.

    `chars`: the length of the texts that it is about. The first slice runs on the event loop, which
    is quickest for short work; with long texts a single step of it would hold the loop.
    """
    task = _Sliced(work)
    if chars <= SHORT_CHARS:
        started = time.perf_counter()
        is_done = task.run(FIRST_SLICE_S)
        await _turn.spend(time.perf_counter() - started)
        if is_done:
            return task.result
    loop = asyncio.get_running_loop()
    while time.monotonic() < ends_at:
        # Shielded, because a slice cannot be stopped and a running generator cannot be closed.
        if await asyncio.shield(loop.run_in_executor(_thread, _run_beside_loop, task)):
            return task.result
    return None


class _Turn:
    """How long first slices have held the event loop since they last let others run. A caller that
    has many short works would else hold it for all of them."""

    def __init__(self) -> None:
        self._spent_s = 0.0

    async def spend(self, took_s: float) -> None:
        self._spent_s += took_s
        if self._spent_s >= FIRST_SLICE_S:
            self._spent_s = 0.0
            await asyncio.sleep(0)


_turn = _Turn()


def _run_beside_loop(task: _Sliced[T]) -> bool:
    """Run a slice in the thread; return whether the work has ended."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(min(usual_s, SWITCH_INTERVAL_S))
    try:
        return task.run(SLICE_S)
    finally:
        sys.setswitchinterval(usual_s)


class _Sliced(Generic[T]):
    def __init__(self, work: Work[T]) -> None:
        self._work = work
        self.result: T | None = None

    def run(self, slice_s: float) -> bool:
        """Run for about `slice_s`; return whether the work has ended."""
        ends_at = time.perf_counter() + slice_s
        try:
            while time.perf_counter() < ends_at:
                next(self._work)
        except StopIteration as stop:
            self.result = stop.value
            return True
        return False


def finish(work: Work[T]) -> T:
    """Run the work to its end at once and return its result."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            result: T = stop.value
            return result
