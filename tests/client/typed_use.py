"""What type checkers say of calls: checked by mypy in `make lint`, never run."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Coroutine
from typing import Any, assert_type

from shared_context_client import (
    BatchItem,
    MemorySet,
    MessageAdded,
    MessageList,
    SharedContextClient,
    SyncSharedContextClient,
)


async def use_the_async_client(client: SharedContextClient) -> None:
    added: Coroutine[Any, Any, MessageAdded] = client.add_message(
        "session_1", content="Hello", visibility="private"
    )
    assert_type((await added).seq, int)
    assert_type(await client.get_messages("session_1", after_seq=3), MessageList)
    await client.add_message("session_1")  # type: ignore[call-arg]
    await client.add_message("session_1", content=1)  # type: ignore[arg-type]
    await client.add_message("session_1", "Hello", visibility="secret")  # type: ignore[arg-type]
    await client.add_message("session_1", "Hello", colour="red")  # type: ignore[call-arg]

    async with client.batch() as batch:
        item = batch.add_message("session_1", "Hello")
        assert_type(item, BatchItem[MessageAdded])
        batch.add_message("session_1", content=1)  # type: ignore[arg-type]
    assert_type(item.result, MessageAdded)

    async with client.outbox() as outbox:
        assert_type(outbox.set_memory("key", {"a": 1}), Future[MemorySet])
        outbox.get_memory("key")  # type: ignore[attr-defined]


def use_the_sync_client(client: SyncSharedContextClient) -> None:
    assert_type(client.add_message("session_1", "Hello"), MessageAdded)
    client.add_message("session_1", content=1)  # type: ignore[arg-type]


class CountingClient(SharedContextClient):
    """A method may be overridden by a method of the same signature."""

    count = 0

    async def mark_read(self, session_id: str, seq: int, *, auth_token: str | None = None) -> Any:
        self.count += 1
        return await super().mark_read(session_id, seq, auth_token=auth_token)
