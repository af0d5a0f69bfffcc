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
        """Start a task; an exception that nobody asks it for is dropped. `context`: the context
        variables it sees, those of the caller if None."""
        task = asyncio.create_task(work, context=context)
        self._running.add(task)
        task.add_done_callback(self._forget)
        return task

    def start_detached(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task that serves many callers, and so must not log as the first of them."""
        return self.start(work, context=contextvars.Context())

    async def wait(self) -> None:
        """Return when all have ended that run now."""
        if self._running:
            await asyncio.wait(self._running)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()
