"""Long work beside the event loop: where it runs, and when it ends."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
from collections.abc import Generator

import pytest

from shared_context_server.services.slices import run_in_slices
from tests.until import PATIENCE_S, until


def work_until(is_over: threading.Event, threads: list[str]) -> Generator[None, None, str]:
    """Work without end, until somebody says so; notes the thread of each of its steps."""
    while not is_over.is_set():
        threads.append(threading.current_thread().name)
        yield
    return "done"


def is_in_thread(threads: list[str]) -> bool:
    """Whether the last step was not made by the event loop's thread."""
    return bool(threads) and threads[-1].startswith("slices")


async def test_short_work_is_done_where_it_is_asked_for() -> None:
    def work() -> Generator[None, None, str]:
        yield
        return threading.current_thread().name

    assert await run_in_slices(work(), math.inf) == threading.current_thread().name


async def test_long_work_goes_on_in_a_thread_while_the_loop_turns() -> None:
    is_over = threading.Event()
    threads: list[str] = []
    async with asyncio.timeout(PATIENCE_S):
        running = asyncio.create_task(run_in_slices(work_until(is_over, threads), math.inf))
        await until(lambda: is_in_thread(threads))  # it returns, so the loop turns
        is_over.set()
        assert await running == "done"
    assert threads[0] == threading.current_thread().name


async def test_who_waits_for_the_interpreter_gets_it_soon_while_work_runs_in_the_thread() -> None:
    usual_s, threads = sys.getswitchinterval(), list[str]()

    def work() -> Generator[None, None, float]:
        while not is_in_thread(threads):
            threads.append(threading.current_thread().name)
            yield
        return sys.getswitchinterval()

    async with asyncio.timeout(PATIENCE_S):
        assert await run_in_slices(work(), math.inf) < usual_s
    assert sys.getswitchinterval() == usual_s


async def test_two_long_works_share_one_thread_in_turns() -> None:
    is_over = threading.Event()
    both: list[list[str]] = [[], []]
    async with asyncio.timeout(PATIENCE_S):
        running = [
            asyncio.create_task(run_in_slices(work_until(is_over, threads), math.inf))
            for threads in both
        ]
        await until(lambda: all(map(is_in_thread, both)))
        is_over.set()
        assert await asyncio.gather(*running) == ["done", "done"]
    assert len({name for threads in both for name in threads if name.startswith("slices")}) == 1


async def test_work_that_is_not_done_in_time_has_no_result() -> None:
    never = threading.Event()
    async with asyncio.timeout(PATIENCE_S):
        assert await run_in_slices(work_until(never, []), time.monotonic()) is None


async def test_what_fails_in_the_thread_fails_for_who_waits() -> None:
    threads: list[str] = []

    def work() -> Generator[None, None, None]:
        while not is_in_thread(threads):
            threads.append(threading.current_thread().name)
            yield
        raise ValueError("in the thread")

    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(ValueError, match="in the thread"):
            await run_in_slices(work(), math.inf)
