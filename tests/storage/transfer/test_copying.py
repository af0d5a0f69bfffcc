"""The contract of storage/copying.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from shared_context_server.models import EventKind, Visibility
from shared_context_server.settings import Settings
from shared_context_server.storage import Copier, Store, open_copier
from shared_context_server.storage.codec import Row, encode_time
from shared_context_server.storage.transfer.copying import RecordRefused, RowReader
from shared_context_server.storage.transfer.lines import to_line
from shared_context_server.storage.transfer.records import (
    API_KEY,
    COUNTER,
    CURSOR,
    KINDS,
    LEASE,
    MEMORY,
    MESSAGE,
    SESSION,
    Key,
    RecordKind,
)
from tests.storage.builders import (
    ALICE,
    BOB,
    CAROL,
    NOON,
    add_message,
    add_session,
    at,
    list_seqs,
)
from tests.storage.filled import fill

NOON_US = encode_time(NOON)


@pytest.fixture
async def copier(store: Store, any_settings: Settings) -> AsyncIterator[Copier]:
    """Of the same store as `storage`."""
    async with open_copier(any_settings, read_only=False) as copier:
        yield copier


async def read(
    reader: RowReader,
    kind: RecordKind,
    *,
    after: Key | None = None,
    up_to: Key | None = None,
    limit: int = 1000,
) -> list[Row]:
    """All rows within the bounds, `limit` at a time."""
    rows: list[Row] = []
    while page := await reader.read_rows(kind, after=after, up_to=up_to, limit=limit):
        assert len(page) <= limit
        rows += page
        after = kind.key_of(page[-1])
    return rows


def session_row(session_id: str = "s", status: str = "active") -> Row:
    return (session_id, "p", "open", status, "alice", NOON_US, None, "[]", "{}", 1, 0, 0, None)


def message_row(message_id: int, seq: int, session_id: str = "s", **fields: Any) -> Row:
    row = {
        "id": message_id,
        "session_id": session_id,
        "seq": seq,
        "sender": "alice",
        "sender_type": "claude",
        "visibility": "public",
        "created_at": NOON_US,
        "parent_message_id": None,
        "recipients": "[]",
        "metadata": "{}",
        "content": "hello",
        "sender_instance": "",
        "ack": "",
    }
    assert tuple(row) == MESSAGE.columns
    return tuple((row | fields).values())


# Reading


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_pages_of_any_size_are_all_rows_by_key(
    store: Store, copier: Copier, kind: RecordKind
) -> None:
    await fill(store)
    rows = await read(copier, kind)
    keys = [kind.key_of(row) for row in rows]
    assert keys == sorted(set(keys))
    assert len(keys) >= 1
    assert await read(copier, kind, limit=1) == rows
    assert await copier.count_rows(kind) == len(rows)
    for row in rows:
        assert to_line(kind, row).count(b"\n") == 1


async def test_bounds_exclude_the_first_and_include_the_last(store: Store, copier: Copier) -> None:
    await fill(store)
    for kind in KINDS:
        rows = await read(copier, kind)
        keys = [kind.key_of(row) for row in rows]
        assert await read(copier, kind, after=keys[0]) == rows[1:]
        assert await read(copier, kind, up_to=keys[0]) == rows[:1]
        assert await read(copier, kind, after=keys[0], up_to=keys[-1], limit=2) == rows[1:]


async def test_memory_keys_are_ordered_by_code_point(store: Store, copier: Copier) -> None:
    await fill(store)
    keys = [row[2] for row in await read(copier, MEMORY) if row[:2] == ("", "alice")]
    assert keys == ["B", "Z", "a", "é", "\uffff", "😀"]


async def test_a_session_that_is_being_deleted_is_not_there(copier: Copier) -> None:
    await copier.write_rows(SESSION, [session_row("kept"), session_row("lost", "deleting")], [])
    await copier.write_rows(MESSAGE, [message_row(1, 1, "lost"), message_row(2, 1, "kept")], [])
    await copier.write_rows(CURSOR, [("lost", "bob", 1)], [])
    await copier.write_rows(LEASE, [("lost", "x", "bob", 1, NOON_US, NOON_US, "", "[]")], [])
    counts = {kind.name: await copier.count_rows(kind) for kind in KINDS}
    assert {name for name, count in counts.items() if count} == {"session", "message", "counter"}
    assert [row[0] for row in await read(copier, SESSION)] == ["kept"]
    assert [row[0] for row in await read(copier, MESSAGE)] == [2]


async def test_a_snapshot_stays_as_it_was(store: Store, copier: Copier) -> None:
    await add_session(store, "s")
    await add_message(store, "s")
    async with copier.open_snapshot() as snapshot:
        await add_session(store, "later")
        await add_message(store, "s")
        assert await snapshot.count_rows(SESSION) == 1
        assert len(await read(snapshot, MESSAGE)) == 1
        assert (await read(snapshot, COUNTER))[1] == ("messages", 1)
    assert await copier.count_rows(MESSAGE) == 2


async def test_the_position_moves_with_every_write_of_others(store: Store, copier: Copier) -> None:
    await fill(store)
    position = await copier.get_position()
    async with copier.open_snapshot() as snapshot:
        await read(snapshot, MESSAGE)
    assert await copier.get_position() == position
    await store.sessions.set_cursor("open", BOB, 3, lambda _: None)
    assert await copier.get_position() != position


# Writing


async def test_written_messages_are_heard_by_those_they_are_for(
    store: Store, copier: Copier
) -> None:
    await copier.write_rows(SESSION, [session_row()], [])
    private = {"visibility": "private", "recipients": '["bob"]'}
    await copier.write_rows(
        MESSAGE, [message_row(7, 1), message_row(9, 2, **private), message_row(12, 3)], []
    )
    assert await list_seqs(store, BOB, "s") == [1, 2, 3]
    assert await list_seqs(store, CAROL, "s") == [1, 3]
    assert await store.sessions.list_participants("s", ALICE, lambda _: None, limit=99) == ["alice"]
    page = await store.messages.read_log("s", after_seq=0, limit=10, guard=lambda _: None)
    assert [message.id for message in page] == [7, 9, 12]


async def test_a_log_goes_on_behind_what_was_written(store: Store, copier: Copier) -> None:
    await copier.write_rows(SESSION, [session_row()], [])
    await copier.write_rows(MESSAGE, [message_row(7, 1)], [])
    added = await add_message(store, "s")
    assert (added.id, added.seq) == (8, 2)


async def test_ids_that_were_given_out_once_are_not_given_out_again(
    store: Store, copier: Copier
) -> None:
    await copier.write_rows(COUNTER, [], [("messages", 500)])
    assert await read(copier, COUNTER) == [("audit_log", 0), ("messages", 500)]
    await copier.write_rows(COUNTER, [], [("messages", 30)])
    await add_session(store, "s")
    assert (await add_message(store, "s")).id == 501


async def test_others_are_told_of_what_is_written(store: Store, copier: Copier) -> None:
    position = await store.changes.get_position()
    await copier.write_rows(SESSION, [session_row()], [])
    await copier.write_rows(MESSAGE, [message_row(7, 1)], [])
    changes = await store.changes.read(position, 10)
    assert {event.kind for event in changes.events} == {
        EventKind.SESSION_CREATED,
        EventKind.MESSAGE_ADDED,
    }


async def test_a_row_that_does_not_go_leaves_all_of_them_out(copier: Copier) -> None:
    await copier.write_rows(SESSION, [session_row()], [])
    await copier.write_rows(MESSAGE, [message_row(7, 1)], [])
    bad: list[tuple[RecordKind, Row]] = [
        (SESSION, session_row()),
        (MESSAGE, message_row(7, 2)),
        (MESSAGE, message_row(8, 1)),
        (MESSAGE, message_row(8, 1, session_id="nowhere")),
        (MESSAGE, message_row(8, 2, visibility="loud")),
    ]
    for kind, row in bad:
        good = session_row("t") if kind is SESSION else message_row(20, 9)
        with pytest.raises(RecordRefused, match=kind.name):
            await copier.write_rows(kind, [good, row], [])
    assert await copier.count_rows(SESSION) == 1
    assert await copier.count_rows(MESSAGE) == 1


async def test_changed_rows_replace_those_of_their_key(store: Store, copier: Copier) -> None:
    await add_session(store, "s")
    (row,) = await read(copier, SESSION)
    closed = dict(zip(SESSION.columns, row, strict=True)) | {
        "status": "closed",
        "closed_at": NOON_US,
    }
    await copier.write_rows(SESSION, [], [tuple(closed.values())])
    assert (await store.sessions.get("s")).closed_at == NOON


async def test_fencing_tokens_go_on_growing(store: Store, copier: Copier) -> None:
    await copier.write_rows(LEASE, [("", "deploy", None, 41, NOON_US, NOON_US, "", "[]")], [])
    attempt = await store.leases.acquire(
        None, "deploy", ALICE, ttl=timedelta(seconds=60), now=at(1), guard=None
    )
    assert attempt.lease.fencing_token == 42


async def test_servers_notice_keys_that_are_written(store: Store, copier: Copier) -> None:
    state = await store.credentials.get_auth_state(None)
    assert state is not None
    row = ("key_1", "alice", "read write", "5ec2e7", NOON_US, *[None] * 7)
    await copier.write_rows(API_KEY, [row], [])
    after = await store.credentials.get_auth_state(state.generation)
    assert after is not None
    assert set(after.keys) == {"key_1"}


async def test_what_was_read_can_be_written_back(store: Store, copier: Copier) -> None:
    await fill(store)
    assert [
        m.visibility
        for m in await store.messages.read_log("open", after_seq=0, limit=9, guard=lambda _: None)
    ][1:] == list(Visibility)
    for kind in KINDS:
        rows = await read(copier, kind)
        await copier.write_rows(kind, [], rows)
        assert await read(copier, kind) == rows


async def fail_in_a_transaction(copier: Copier) -> None:
    async with copier.open_transaction():
        await copier.write_rows(SESSION, [session_row()], [])
        await copier.write_rows(MESSAGE, [message_row(1, 1)], [])
        assert await copier.count_rows(MESSAGE) == 1
        raise LookupError


async def test_a_transaction_is_written_whole_or_not_at_all(copier: Copier) -> None:
    with pytest.raises(LookupError):
        await fail_in_a_transaction(copier)
    assert await copier.count_rows(SESSION) == 0
    async with copier.open_transaction():
        await copier.write_rows(SESSION, [session_row()], [])
        with pytest.raises(RecordRefused):
            await copier.write_rows(SESSION, [session_row("t"), session_row()], [])
        await copier.write_rows(MESSAGE, [message_row(1, 1)], [])
    assert await read(copier, SESSION) == [session_row()]
    assert await copier.count_rows(MESSAGE) == 1
