"""Run the blocking work of an indexer in a thread of its own, one function after the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Closing(Exception):
    """The indexer is being closed."""


class IndexThread:
    """The thread of one indexer."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="search-indexer")
        self._is_closing = threading.Event()

    def begin_closing(self) -> None:
        """Let the work under way end soon."""
        self._is_closing.set()

    def check(self) -> None:
        """Raise Closing if the indexer is being closed. For any thread."""
        if self._is_closing.is_set():
            raise Closing

    async def run(self, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Run the function in the thread, unless the indexer is being closed."""
        self.check()
        return await self.finish(function, *args, **named)

    async def finish(self, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Run the function in the thread. If the caller is cancelled, it runs on."""
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._thread, partial(function, *args, **named))
        running.add_done_callback(_retrieve_error)
        return await asyncio.shield(running)

    async def aclose(self) -> None:
        """Wait until the work under way has ended."""
        await asyncio.to_thread(self._thread.shutdown)


def _retrieve_error(running: asyncio.Future[Any]) -> None:
    """Mark the error as retrieved: a caller that was cancelled does not wait for it."""
    if not running.cancelled():
        running.exception()
