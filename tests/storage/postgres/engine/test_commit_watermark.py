"""Messages are committed in the order of their seq; ids are read as if they were."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from shared_context_server.errors import SessionClosed
from shared_context_server.models import EventKind
from shared_context_server.settings import Settings
from shared_context_server.storage import Store, open_storage
from shared_context_server.storage.postgres.engine.commit_watermark import count_gapless
from tests.postgres import DatabaseServer
from tests.storage.builders import (
    ALICE,
    NOON,
    add_message,
    add_session,
    address,
    list_seqs,
    put,
    writer_guard,
)

PATIENCE_S = 30.0
Connection = Any  # asyncpg's own is generic for type checkers only

_APPEND = """
    SELECT seq FROM append_message(
        $1, (SELECT created_at FROM sessions WHERE id = $1), 'bob', 'claude', 'public', '[]',
        '{}', 'slow', 0, NULL, NULL, NULL, '')"""
# What adding would be with seq from a sequence: no lock, and no order of commits.
_APPEND_WITHOUT_ORDER = """
    CREATE SEQUENCE plain_identity;
    DROP FUNCTION append_message;
    CREATE FUNCTION append_message(
        p_session_id TEXT, p_session_created_at BIGINT, p_sender TEXT, p_sender_type TEXT,
        p_visibility TEXT, p_recipients TEXT, p_metadata TEXT, p_content TEXT, p_created_at BIGINT,
        p_key TEXT, p_kind TEXT, p_fingerprint TEXT, p_sender_instance TEXT
    ) RETURNS TABLE (id BIGINT, seq BIGINT) LANGUAGE sql AS $$
        INSERT INTO messages (
            session_id, seq, sender, sender_type, visibility, recipients, metadata, content,
            created_at)
        VALUES (
            p_session_id, nextval('plain_identity'), p_sender, p_sender_type, p_visibility,
            p_recipients, p_metadata, p_content, p_created_at)
        RETURNING id, seq
    $$"""


async def read_beside_a_slow_writer(store: Store, connection: Connection) -> list[int]:
    """The seqs that a reader by cursor gets who reads before and after a slow writer commits."""
    await add_session(store)
    await add_message(store)
    seen: list[int] = []

    async def read_on() -> None:
        seen.extend(await list_seqs(store, ALICE, after_seq=seen[-1] if seen else 0))

    slow = connection.transaction()
    await slow.start()
    await connection.fetchval(_APPEND, "session_1")
    quick = asyncio.create_task(add_message(store))
    await asyncio.wait([quick], timeout=0.5)
    await read_on()
    await slow.commit()
    await asyncio.wait_for(quick, PATIENCE_S)
    await read_on()
    return seen


async def test_a_reader_by_cursor_misses_nothing_of_a_slow_writer(
    store: Store, connection: Connection
) -> None:
    assert await read_beside_a_slow_writer(store, connection) == [1, 2, 3]


async def test_with_a_plain_identity_column_it_would(
    postgres: DatabaseServer, tmp_path: Path
) -> None:
    """The check of the check above."""
    with postgres.new_database(is_migrated=False) as found:
        settings = Settings(data_dir=tmp_path, **found)
        connection = await asyncpg.connect(settings.postgres_listen_url or settings.storage_url)
        async with open_storage(settings) as store:
            await connection.execute(_APPEND_WITHOUT_ORDER)
            assert await read_beside_a_slow_writer(store, connection) == [1, 3]
        await connection.close()


async def test_replicas_that_write_one_session_number_it_without_gaps(settings: Settings) -> None:
    """And a reader in each of them, going by its cursor, sees each message once, in order."""
    replicas, writers, each = 3, 5, 12
    total = replicas * writers * each
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(open_storage(settings)) for _ in range(replicas)]
        await add_session(stores[0])

        async def write(store: Store) -> None:
            for _ in range(each):
                await add_message(store)

        async def follow(store: Store) -> list[int]:
            seen: list[int] = []
            while len(seen) < total:
                seen += await list_seqs(store, ALICE, after_seq=seen[-1] if seen else 0)
            return seen

        async with asyncio.timeout(PATIENCE_S):
            followed, *_ = await asyncio.gather(
                asyncio.gather(*(follow(store) for store in stores)),
                *(write(store) for store in stores for _ in range(writers)),
            )
        assert followed == [list(range(1, total + 1))] * replicas


async def test_nothing_is_added_behind_a_close_that_was_first(
    store: Store, connection: Connection
) -> None:
    """Unique seqs alone would keep the order of the log, not this: the lock on the session does."""
    await add_session(store)
    await add_message(store, guard=writer_guard(ALICE))
    closing = connection.transaction()
    await closing.start()
    await connection.execute("SELECT 1 FROM sessions WHERE id = 'session_1' FOR UPDATE")
    await connection.execute("UPDATE sessions SET status = 'closed' WHERE id = 'session_1'")
    adding = asyncio.create_task(add_message(store, guard=writer_guard(ALICE)))
    await asyncio.wait([adding], timeout=0.5)
    await closing.commit()
    with pytest.raises(SessionClosed):
        await asyncio.wait_for(adding, PATIENCE_S)
    assert await list_seqs(store, ALICE) == [1]


async def test_ids_are_not_passed_while_an_older_one_may_come(
    store: Store, connection: Connection
) -> None:
    """The slow writer has taken its id before the quick one, and commits after it."""
    await add_session(store, "slow")
    await add_session(store, "quick")
    start = await store.changes.get_position()
    slow = connection.transaction()
    await slow.start()
    await connection.fetchval(_APPEND, "slow")
    quick = await add_message(store, "quick")
    page = await store.messages.list_new(ALICE, after_id=0, limit=10)
    assert (page.messages, page.next_after_id, page.has_more) == ([], 0, False)
    changes = await store.changes.read(start, 10)
    assert (changes.events, changes.position) == ([], start)
    await slow.commit()
    page = await store.messages.list_new(ALICE, after_id=0, limit=10)
    assert [message.session_id for message in page.messages] == ["slow", "quick"]
    assert page.next_after_id == quick.id
    events = (await store.changes.read(start, 10)).events
    assert [event.session_id for event in events] == ["slow", "quick"]


async def test_an_id_that_was_rolled_back_holds_nobody_up(
    store: Store, connection: Connection
) -> None:
    await add_session(store)
    start = await store.changes.get_position()
    failing = connection.transaction()
    await failing.start()
    await connection.fetchval(_APPEND, "session_1")
    await failing.rollback()
    added = await add_message(store)
    page = await store.messages.list_new(ALICE, after_id=0, limit=10)
    assert [message.id for message in page.messages] == [added.id]
    assert (await store.changes.read(start, 10)).position.message_id == added.id


async def test_a_long_transaction_beside_holds_nobody_up(
    store: Store, connection: Connection
) -> None:
    """It has a transaction id and rolled back ids are about, but it writes no messages."""
    await add_session(store)
    start = await store.changes.get_position()
    failing = connection.transaction()
    await failing.start()
    await connection.fetchval(_APPEND, "session_1")
    await failing.rollback()
    async with connection.transaction():
        await connection.execute("UPDATE auth_generation SET generation = generation + 1")
        added = await add_message(store)
        assert (await store.changes.read(start, 10)).position.message_id == added.id
        assert (await store.changes.get_position()).message_id == added.id


async def test_the_end_of_the_tail_is_behind_what_is_about_to_commit(
    store: Store, connection: Connection
) -> None:
    """Else what commits then would be behind nobody's position."""
    await add_session(store)
    slow = connection.transaction()
    await slow.start()
    await connection.fetchval(_APPEND, "session_1")
    asking = asyncio.create_task(store.changes.get_position())
    await asyncio.sleep(0.01)  # lets it begin; the outcome is the same if it has not
    await slow.commit()
    position = await asyncio.wait_for(asking, PATIENCE_S)
    added = await add_message(store)
    events = (await store.changes.read(position, 10)).events
    assert [event.seq for event in events if event.kind is EventKind.MESSAGE_ADDED] == [added.seq]


async def test_changes_of_memory_are_told_in_spite_of_slow_writers(
    store: Store, connection: Connection
) -> None:
    start = await store.changes.get_position()
    slow = connection.transaction()
    await slow.start()
    await connection.execute("INSERT INTO changes (kind, name) VALUES ('memory_changed', 'slow')")
    await store.memory.write(address("quick"), ALICE, put(1), now=NOON, guard=None)
    assert (await store.changes.read(start, 10)).events == []
    await slow.commit()
    events = (await store.changes.read(start, 10)).events
    assert [event.name for event in events] == ["slow", "quick"]


@pytest.mark.parametrize(
    "ids,expected",
    [([], 0), ([8], 1), ([9], 0), ([8, 9, 10], 3), ([8, 10, 11], 1), ([8, 9, 11], 2)],
)
def test_ids_are_counted_up_to_the_first_gap(ids: list[int], expected: int) -> None:
    assert count_gapless(ids, 7) == expected
