"""Queue writes and send them in order, also across an outage of the server."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque
from dataclasses import dataclass
from typing import Any

from shared_context_client._generated.errors import RateLimited
from shared_context_client._generated.tools import OutboxTools
from shared_context_client.answers import read_result
from shared_context_client.connection import TOOL_PATH, Connection
from shared_context_client.errors import (
    NotSent,
    OutboxFull,
    ServerUnavailable,
    SharedContextError,
)
from shared_context_client.wire import Call, JsonObject, R, Record, encode_json


@dataclass(frozen=True, slots=True)
class Unsent:
    """A write that was not sent. Its arguments include the idempotency_key, so sending it later
    does not write twice."""

    tool: str
    arguments: JsonObject


@dataclass(slots=True)
class _Write:
    call: Call[Any]
    body: bytes
    answer: Future[Any]
    is_tried: bool = False


class Outbox(OutboxTools):
    """Accepts writes without waiting for the server and sends them one by one, in order. While the
    server is away they are kept, in memory only.

    A write method returns a future of its result, and raises OutboxFull when `max_writes` are
    waiting. A write that the server refuses fails its future, and the next ones continue. Leaving
    the `async with` block waits up to `drain_s` seconds for the queue to empty. Writes left then
    are in `unsent`, and their futures raise NotSent.
    """

    def __init__(self, connection: Connection, *, max_writes: int, drain_s: float) -> None:
        self._connection = connection
        self._max_writes = max_writes
        self._drain_s = drain_s
        self._writes: deque[_Write] = deque()
        self._has_news = asyncio.Event()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._sender: asyncio.Task[None] | None = None
        self.unsent: list[Unsent] = []

    async def __aenter__(self) -> Outbox:
        self._sender = asyncio.create_task(self._send_all())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            await self.flush(self._drain_s)
        except ServerUnavailable:
            pass  # `unsent` and the futures report what is left
        finally:
            await self._stop()

    def __len__(self) -> int:
        """Return the number of waiting writes."""
        return len(self._writes)

    async def flush(self, timeout_s: float) -> None:
        """Wait until no write waits. Raises ServerUnavailable when the time is up."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._is_empty.wait()
        except TimeoutError as exc:
            raise ServerUnavailable(f"{len(self)} writes are still waiting.") from exc

    def _call(self, call: Call[R]) -> Future[R]:
        if self._sender is None or self._sender.done():
            raise NotSent("The outbox is not open.", suggestion="Use it in `async with`.")
        if len(self._writes) >= self._max_writes:
            raise OutboxFull(f"The outbox is full: {len(self._writes)} writes are waiting.")
        answer: Future[R] = asyncio.get_running_loop().create_future()
        self._writes.append(_Write(call, encode_json(call.arguments), answer))
        self._is_empty.clear()
        self._has_news.set()
        return answer

    async def _send_all(self) -> None:
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            while self._writes:
                await self._send(self._writes[0])
                self._writes.popleft()
            self._is_empty.set()

    async def _send(self, write: _Write) -> None:
        attempt = 0
        while not (write.answer.cancelled() and not write.is_tried):
            write.is_tried = True
            try:
                content = await self._connection.post(
                    TOOL_PATH + write.call.tool.name, write.body, may_repeat=True
                )
                _settle(write.answer, read_result(content, write.call.result))
            except (ServerUnavailable, RateLimited) as exc:
                await asyncio.sleep(self._connection.pause_s(attempt, exc.retry_after_s))
                attempt += 1
                continue
            except SharedContextError as exc:
                _settle(write.answer, exc)
            return

    async def _stop(self) -> None:
        assert self._sender is not None
        self._sender.cancel()
        await asyncio.wait([self._sender])
        for write in self._writes:
            self.unsent.append(Unsent(write.call.tool.name, write.call.arguments))
            _settle(
                write.answer,
                NotSent("The outbox was closed first.", is_outcome_unknown=write.is_tried),
            )
        self._writes.clear()


def _settle(answer: Future[Any], outcome: Record | SharedContextError) -> None:
    if answer.done():
        return
    if isinstance(outcome, SharedContextError):
        answer.set_exception(outcome)
        answer.exception()  # mark the error as retrieved, for callers that do not await the future
    else:
        answer.set_result(outcome)
