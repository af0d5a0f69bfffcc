"""The change stream of a store that was set back to an earlier state."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from shared_context_server.settings import Settings
from shared_context_server.storage import Store
from shared_context_server.storage.sqlite.engine.connections import database_path
from tests.storage.builders import ALICE, NOON, add_message, add_session, allow, at, make_audit, put
from tests.storage.builders import address as memory_address

_TABLES = ("sessions", "messages", "audience", "participants", "cursors", "memory", "changes")


class Saved:
    """A state of the store, which can be put back while processes have it open."""

    def __init__(self, settings: Settings, tmp_path: Path) -> None:
        self._settings = settings
        self._copy = tmp_path / "saved.db"

    async def save(self) -> None:
        if self._settings.database_url is None:
            await asyncio.to_thread(_copy, database_path(self._settings), self._copy)
        else:
            await self._execute(
                "CREATE SCHEMA saved;"
                + "".join(f"CREATE TABLE saved.{name} AS TABLE {name};" for name in _TABLES)
                + "CREATE TABLE saved.message_ids AS SELECT last_value, is_called FROM messages_id_seq;"
                "CREATE TABLE saved.change_ids AS SELECT last_value, is_called FROM changes_id_seq"
            )

    async def put_back(self) -> None:
        if self._settings.database_url is None:
            await asyncio.to_thread(_copy, self._copy, database_path(self._settings))
        else:
            await self._execute(
                "BEGIN; SET session_replication_role = replica;"
                + "".join(f"DELETE FROM {name};" for name in _TABLES)
                + "".join(
                    f"INSERT INTO {name} OVERRIDING SYSTEM VALUE TABLE saved.{name};"
                    for name in _TABLES
                )
                + "SELECT setval('messages_id_seq', last_value, is_called) FROM saved.message_ids;"
                "SELECT setval('changes_id_seq', last_value, is_called) FROM saved.change_ids;"
                "DROP SCHEMA saved CASCADE; COMMIT"
            )

    async def _execute(self, sql: str) -> None:
        connection = await asyncpg.connect(self._settings.storage_url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)


@pytest.fixture
def saved(any_settings: Settings, tmp_path: Path) -> Saved:
    return Saved(any_settings, tmp_path)


async def test_a_state_that_lacks_what_was_read_is_told_once(store: Store, saved: Saved) -> None:
    await add_session(store)
    await add_message(store)
    await saved.save()
    await add_message(store)
    position = await store.changes.get_position()
    await saved.put_back()
    changes = await store.changes.read(position, 10)
    assert (changes.is_set_back, changes.is_complete, changes.events) == (True, False, [])
    added = await add_message(store)
    changes = await store.changes.read(changes.position, 10)
    assert not changes.is_set_back
    assert [event.seq for event in changes.events] == [added.seq]


async def test_it_is_told_though_as_much_was_written_anew(store: Store, saved: Saved) -> None:
    """The ids are given out again, and go beyond the position."""
    await add_session(store)
    await saved.save()
    lost = await add_message(store, created_at=at(1))
    position = await store.changes.get_position()
    await saved.put_back()
    anew = [await add_message(store, created_at=at(second)) for second in range(2, 6)]
    assert anew[0].seq == lost.seq
    assert (await store.changes.read(position, 10)).is_set_back


async def test_it_is_told_where_the_session_itself_is_gone(store: Store, saved: Saved) -> None:
    await saved.save()
    await add_session(store)
    await add_message(store)
    position = await store.changes.get_position()
    await saved.put_back()
    for number in range(3):
        await add_session(store, f"session_new_{number}")
    assert (await store.changes.read(position, 10)).is_set_back


async def test_a_lost_change_of_memory_is_told(store: Store, saved: Saved) -> None:
    await saved.save()
    await store.memory.write(memory_address("k"), ALICE, put(1), now=NOON, guard=None)
    position = await store.changes.get_position()
    await saved.put_back()
    assert (await store.changes.read(position, 10)).is_set_back


async def test_a_deleted_session_is_no_set_back(store: Store) -> None:
    """Its messages are gone, the newest of the store among them."""
    await add_session(store)
    await add_message(store)
    position = await store.changes.get_position()
    await store.sessions.delete("session_1", allow, make_audit())
    changes = await store.changes.read(position, 10)
    assert not changes.is_set_back
    await add_session(store, "session_2")
    await add_message(store, "session_2")
    changes = await store.changes.read(changes.position, 10)
    assert not changes.is_set_back
    assert [event.session_id for event in changes.events if event.seq] == ["session_2"]


async def test_a_session_deleted_and_made_anew_is_no_set_back(store: Store) -> None:
    await add_session(store)
    await add_message(store)
    position = await store.changes.get_position()
    await store.sessions.delete("session_1", allow, make_audit())
    await add_session(store)
    await add_message(store)
    assert not (await store.changes.read(position, 10)).is_set_back


async def test_a_store_without_messages_is_no_set_back(store: Store) -> None:
    position = await store.changes.get_position()
    assert position.anchor is None
    assert not (await store.changes.read(position, 10)).is_set_back
