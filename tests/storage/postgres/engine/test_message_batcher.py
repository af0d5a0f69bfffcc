"""Messages of one session that come while its row is taken: they go together, each on its own
account."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from shared_context_server.errors import InternalError
from shared_context_server.models import Visibility
from shared_context_server.settings import Settings
from shared_context_server.storage import Store, open_storage
from shared_context_server.storage.contract import AddedMessage
from tests.storage.builders import (
    ALICE,
    ALL,
    BOB,
    CAROL,
    add_message,
    add_session,
    allow,
    list_seqs,
)
from tests.storage.postgres.conftest import until_another_waits
from tests.until import PATIENCE_S

CALLERS = 25
Connection = Any  # asyncpg's own is generic for type checkers only


@asynccontextmanager
async def taken_session(store: Store, connection: Connection) -> AsyncIterator[None]:
    """session_1 with one message under way that gets no further until the block ends."""
    await add_session(store)
    async with connection.transaction():
        await connection.execute("SELECT 1 FROM sessions WHERE id = 'session_1' FOR UPDATE")
        first = asyncio.create_task(add_message(store, content="first"))
        await until_another_waits(connection)
        yield
    assert (await asyncio.wait_for(first, PATIENCE_S)).seq == 1


async def start_adding(store: Store, content: str, **fields: Any) -> asyncio.Task[AddedMessage]:
    task = asyncio.create_task(add_message(store, content=content, **fields))
    await asyncio.sleep(0)  # it is in the queue
    return task


async def test_those_who_wait_leave_the_connections_to_other_sessions(
    settings: Settings, connection: Connection
) -> None:
    narrow = settings.model_copy(update={"postgres_pool_size": 2})
    async with open_storage(narrow) as store, asyncio.timeout(PATIENCE_S):
        async with taken_session(store, connection):
            adding = [await start_adding(store, str(n)) for n in range(CALLERS)]
            await add_session(store, "session_2")
            assert (await add_message(store, "session_2")).seq == 1
        assert [(await task).seq for task in adding] == list(range(2, CALLERS + 2))
        transactions = (
            "SELECT count(DISTINCT xmin::text) FROM messages WHERE session_id = 'session_1'"
        )
        assert await connection.fetchval(transactions) == 2
        page = await store.messages.list_visible("session_1", ALICE, ALL, allow)
        assert [message.content for message in page.messages] == [
            "first",
            *map(str, range(CALLERS)),
        ]


async def test_each_keeps_its_sender_and_its_audience(store: Store, connection: Connection) -> None:
    async with taken_session(store, connection):
        adding = [
            await start_adding(
                store,
                f"{sender.agent_id} to {reader.agent_id}",
                sender=sender,
                visibility=Visibility.PRIVATE,
                recipients=(reader.agent_id,),
            )
            for sender, reader in [(ALICE, BOB), (CAROL, BOB), (ALICE, CAROL)]
        ]
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*adding)
    for caller, seqs in [(ALICE, [1, 2, 4]), (BOB, [1, 2, 3]), (CAROL, [1, 3, 4])]:
        page = await store.messages.list_visible("session_1", caller, ALL, allow)
        assert [message.seq for message in page.messages] == seqs
        assert all(m.content.startswith(f"{m.sender} to ") for m in page.messages[1:])


async def test_the_fault_of_one_is_not_that_of_the_others(
    store: Store, connection: Connection
) -> None:
    async with taken_session(store, connection):
        adding = [await start_adding(store, text) for text in ("a", "not\0text", "b")]
    async with asyncio.timeout(PATIENCE_S):
        good, bad, other = await asyncio.gather(*adding, return_exceptions=True)
    assert isinstance(bad, InternalError)
    assert isinstance(good, AddedMessage)
    assert isinstance(other, AddedMessage)
    assert (good.seq, other.seq) == (2, 3)


async def test_two_of_one_key_are_one_message(store: Store, connection: Connection) -> None:
    same: dict[str, Any] = {"idempotency_key": "key", "fingerprint": "print"}
    async with taken_session(store, connection):
        adding = [await start_adding(store, "once", **same) for _ in range(2)]
    async with asyncio.timeout(PATIENCE_S):
        first, second = await asyncio.gather(*adding)
    assert (first.id, first.seq) == (second.id, second.seq)
    assert (first.duplicate, second.duplicate) == (False, True)
    assert await list_seqs(store, ALICE) == [1, 2]


async def test_who_leaves_the_queue_adds_nothing(store: Store, connection: Connection) -> None:
    async with taken_session(store, connection):
        staying = await start_adding(store, "stays")
        leaving = await start_adding(store, "leaves")
        leaving.cancel()
        await asyncio.wait([leaving])
    assert (await asyncio.wait_for(staying, PATIENCE_S)).seq == 2
    assert await list_seqs(store, ALICE) == [1, 2]
