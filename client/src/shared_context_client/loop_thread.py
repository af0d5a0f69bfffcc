"""An event loop in a thread of its own, for the sync client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

T = TypeVar("T")
_CLOSED = "The client is closed."


class LoopThread:
    """Runs coroutines for any number of threads, until it is closed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._is_closed = False
        # A daemon, so that a program that does not close still ends.
        self._thread = threading.Thread(target=self._run, name="shared-context-client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return the coroutine's result. Interrupting the waiting thread cancels it. Raises
        RuntimeError when the loop is closed, also while waiting."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("The sync client cannot be called from its own callbacks.")
        future = self._submit(coroutine)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError(_CLOSED) from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel the running coroutines and end the thread. May be called twice."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        with self._lock:
            if self._is_closed:
                coroutine.close()
                raise RuntimeError(_CLOSED)
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
