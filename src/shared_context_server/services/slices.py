"""Long work in short slices, so that the event loop is free in between.

Work is a generator that yields often. A first slice runs where it is asked for: most work ends
within it, sooner than a thread would begin. What is left runs in one thread that all such work of a
process shares in turns. One thread, because each further one that runs Python code makes the event
loop wait longer for the interpreter.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")

Work = Generator[None, None, T]

FIRST_SLICE_S = 0.002
SLICE_S = 0.01

_thread = ThreadPoolExecutor(1, thread_name_prefix="slices")


async def run_in_slices(work: Work[T], ends_at: float) -> T | None:
    """The work's result; None if it has not ended when time.monotonic() passes `ends_at`."""
    task = _Sliced(work)
    if task.run(FIRST_SLICE_S):
        return task.result
    loop = asyncio.get_running_loop()
    while time.monotonic() < ends_at:
        # Shielded: a slice cannot be stopped, and a generator that runs cannot be closed.
        if await asyncio.shield(loop.run_in_executor(_thread, task.run, SLICE_S)):
            return task.result
    return None


class _Sliced(Generic[T]):
    def __init__(self, work: Work[T]) -> None:
        self._work = work
        self.result: T | None = None

    def run(self, slice_s: float) -> bool:
        """Go on for about so long; whether the work has ended."""
        ends_at = time.perf_counter() + slice_s
        try:
            while time.perf_counter() < ends_at:
                next(self._work)
        except StopIteration as stop:
            self.result = stop.value
            return True
        return False


def finish(work: Work[T]) -> T:
    """The result of the work, done at once."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            result: T = stop.value
            return result
