"""Tasks that run beside their caller, held until they end."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundTasks:
    """The running tasks of one owner, for one event loop.

    The loop itself refers to tasks weakly only, so that one which nobody holds may be collected
    before it ends. Tasks begin in an empty context: they serve many callers, and must not log in
    the name of the first of them. What a task raises is reported by asyncio.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run the coroutine as a task, and hold the task until it ends."""
        task = asyncio.create_task(work, name=self._name, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def wait(self, timeout_s: float | None = None) -> None:
        """Wait until those that run now have ended, for no longer than `timeout_s`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
