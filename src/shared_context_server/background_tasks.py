"""Tasks that nobody awaits while they run: referred to until they end, and awaited together at the end."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundTasks:
    """A set of running tasks, for one event loop. asyncio keeps no reference to a task, so one that
    nobody refers to may be collected before it ends.

    TaskGroup is no substitute: it cancels all of its tasks when one fails, and belongs to one block.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def __bool__(self) -> bool:
        return bool(self._running)

    def start(
        self, work: Coroutine[Any, Any, T], *, context: contextvars.Context | None = None
    ) -> asyncio.Task[T]:
        """Start a task. `context`: the context variables it sees, those of the caller if None; a task
        that serves many callers is given an empty one, or it would log as the first of them."""
        task = asyncio.create_task(work, context=context)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def wait(self) -> None:
        """Return when all have ended that run now."""
        if self._running:
            await asyncio.wait(self._running)
