"""Tasks that nobody but their owner holds."""

from __future__ import annotations

import asyncio
import contextvars
import gc

from shared_context_server.background_tasks import BackgroundTasks
from tests.until import PATIENCE_S

CALLER: contextvars.ContextVar[str] = contextvars.ContextVar("CALLER", default="nobody")


async def test_a_task_is_held_until_it_ends() -> None:
    tasks = BackgroundTasks("test")
    ended: list[bool] = []

    async def work() -> None:
        await asyncio.sleep(0)
        ended.append(True)

    tasks.start(work())
    assert len(tasks) == 1
    gc.collect()
    async with asyncio.timeout(PATIENCE_S):
        await tasks.wait()
    assert ended == [True]
    assert len(tasks) == 0


async def test_waiting_has_a_limit() -> None:
    tasks = BackgroundTasks("test")
    task = tasks.start(asyncio.Event().wait())
    async with asyncio.timeout(PATIENCE_S):
        await tasks.wait(timeout_s=0)
    assert not task.done()
    task.cancel()
    async with asyncio.timeout(PATIENCE_S):
        await tasks.wait()
    assert task.cancelled()


async def test_a_task_does_not_run_in_the_name_of_the_caller_who_started_it() -> None:
    tasks = BackgroundTasks("test")
    seen: list[str] = []

    async def note() -> None:
        seen.append(CALLER.get())

    CALLER.set("alice")
    tasks.start(note())
    async with asyncio.timeout(PATIENCE_S):
        await tasks.wait()
    assert seen == ["nobody"]


async def test_waiting_for_nothing_returns() -> None:
    await BackgroundTasks("test").wait()
