"""Run each request in a task, so that a cancelled caller leaves the connection pool intact.

httpcore 1.0 loses a connection for good when its task is cancelled between getting a connection and
using it, or while a response is closed. So the request's own task is cancelled only while it waits
for the server. Otherwise it ends by itself before its next step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

import httpx

_WAITING = ("receive_response_headers", "receive_response_body")
_CLOSING = "response_closed"


class RequestTasks:
    """The requests of one HTTP client, each in a task. For the tasks of one loop."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._ending: set[asyncio.Task[Any]] = set()

    async def send(self, request: httpx.Request, *, stream: bool = False) -> httpx.Response:
        """Send as AsyncClient.send does. Pass a stream to `end` later. Raises httpx.RequestError."""
        steps = _Steps()
        request.extensions["trace"] = steps.note
        task = asyncio.create_task(self._http.send(request, stream=stream))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._ending.add(task)
            task.add_done_callback(self._end_given_up)
            steps.give_up(task)
            raise

    async def end(self, response: httpx.Response) -> None:
        """Close a stream completely, even if the caller is cancelled meanwhile."""
        await asyncio.shield(self._start(response.aclose()))

    async def close(self) -> None:
        """Close all connections."""
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._http.aclose()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task

    def _end_given_up(self, task: asyncio.Task[httpx.Response]) -> None:
        self._ending.discard(task)
        if not task.cancelled() and task.exception() is None and not task.result().is_closed:
            self._start(task.result().aclose())


class _Steps:
    """Where a request is, according to httpcore's trace."""

    def __init__(self) -> None:
        self._is_given_up = False
        self._is_waiting = False

    async def note(self, event: str, _info: Mapping[str, Any]) -> None:
        """Receive a trace event: `….started` before each step, another suffix after it."""
        step, _, moment = event.rpartition(".")
        is_start = moment == "started"
        if is_start and self._is_given_up and not step.endswith(_CLOSING):
            raise asyncio.CancelledError
        self._is_waiting = is_start and step.endswith(_WAITING)

    def give_up(self, task: asyncio.Task[httpx.Response]) -> None:
        self._is_given_up = True
        if self._is_waiting:
            task.cancel()
