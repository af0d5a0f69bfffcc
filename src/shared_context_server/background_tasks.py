"""Background tasks of asyncio, with a reference to each until it ends."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundTasks:
    """The running background tasks of one owner, for one event loop.

    The loop has only weak references to tasks: without another reference a task can be collected
    before it ends. Tasks start in an empty context, because they serve many callers and must not log
    the first one's name. asyncio reports the errors of tasks.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run the coroutine as a task."""
        task = asyncio.create_task(work, name=self._name, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the current tasks have ended, at most `timeout_s`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
