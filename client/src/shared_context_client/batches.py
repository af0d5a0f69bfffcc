"""Send many calls in one request."""

from __future__ import annotations

import json
from typing import Any

from shared_context_client._generated.tools import BatchTools
from shared_context_client.batch_item import BatchItem
from shared_context_client.connection import Connection
from shared_context_client.errors import SharedContextError, UnexpectedAnswer
from shared_context_client.wire import Call, R

BATCH_PATH = "/mcp/batch"
MAX_CALLS = 100  # in one request
MAX_BODY_BYTES = 900_000  # below the server's default limit of 1 MiB, with room for the frame


class Batch(BatchTools):
    """Collects calls and sends them in order, in as few requests as the server's limits allow.

    The server runs the calls in order. If one fails, the next still runs: each item has its own
    result or error. If a whole request fails, its calls and all later ones have that error, and
    `send` raises it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._items: list[BatchItem[Any]] = []

    async def __aenter__(self) -> Batch:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            await self.send()

    def _call(self, call: Call[R]) -> BatchItem[R]:
        item = BatchItem(call.tool, call.arguments, call.result)
        self._items.append(item)
        return item

    async def send(self) -> list[BatchItem[Any]]:
        """Send the calls collected since the last time; return their items in order."""
        items, self._items = self._items, []
        unsent = list(items)
        try:
            for part, body in _split(items):
                await self._send_part(part, body)
                del unsent[: len(part)]
        except SharedContextError as exc:
            for item in unsent:
                item.error = exc
            raise
        return items

    async def _send_part(self, part: list[BatchItem[Any]], body: bytes) -> None:
        content = await self._connection.post(
            BATCH_PATH,
            body,
            may_repeat=all(item.tool.may_repeat for item in part),
            waiting_s=sum(item.tool.waiting_s(item.arguments) for item in part),
        )
        try:
            results = json.loads(content)["results"]
            for item, answer in zip(part, results, strict=True):
                item.settle(answer["status"], answer["result"])
        except (ValueError, KeyError, TypeError) as exc:
            raise UnexpectedAnswer(
                "The answer to a batch is not a list of results.", status=200
            ) from exc


def _split(items: list[BatchItem[Any]]) -> list[tuple[list[BatchItem[Any]], bytes]]:
    """Yield the calls of each request, with its body."""
    parts: list[tuple[list[BatchItem[Any]], list[bytes]]] = []
    size = 0
    for item in items:
        call = item.encode()
        if not parts or len(parts[-1][0]) == MAX_CALLS or size + len(call) > MAX_BODY_BYTES:
            parts.append(([], []))
            size = 0
        parts[-1][0].append(item)
        parts[-1][1].append(call)
        size += len(call) + 1
    return [(part, b'{"calls":[' + b",".join(calls) + b"]}") for part, calls in parts]
