"""A deletion that was cut off after it had been acknowledged, or just before."""

from __future__ import annotations

import sqlite3

import pytest

from shared_context_server.errors import Conflict, SessionNotFound
from shared_context_server.settings import Settings
from shared_context_server.storage.sqlite import open_sqlite
from shared_context_server.storage.sqlite.sessions import Sessions
from tests.storage.builders import (
    ADMIN,
    ALICE,
    NOON,
    add_message,
    add_session,
    address,
    allow,
    at,
    make_audit,
    put,
    run_on,
)

MESSAGES = 700  # more than one step


async def test_a_deletion_cut_off_is_finished_by_purging(
    settings: Settings, outsider: sqlite3.Connection
) -> None:
    async with open_sqlite(settings) as store:
        await add_session(store)
        for _ in range(MESSAGES):
            await add_message(store)
        place = address("key", session_id="session_1")
        await store.memory.write(place, ALICE, put(1), now=NOON, guard=allow)
        # As a process does that dies after the first of its steps.
        run_on(outsider, Sessions._mark_deleted, "session_1", allow, make_audit())

        with pytest.raises(SessionNotFound):
            await store.sessions.get("session_1")
        with pytest.raises(SessionNotFound):
            await add_message(store)
        with pytest.raises(SessionNotFound):
            await store.memory.get(place, now=NOON, guard=allow)
        for created_by in (None, "alice"):
            page = await store.sessions.list_visible(
                ADMIN, status=None, created_by=created_by, limit=9
            )
            assert not page.items
        assert (await store.maintenance.get_stats(active_since=NOON)).active_sessions == 0
        with pytest.raises(Conflict):
            await add_session(store)

        purged = await store.maintenance.purge(
            expired_before=at(-9), idempotency_before=at(-9), audit_before=at(-9)
        )
        # Messages, their audience (two rows each), the writer, and the memory.
        assert purged == 3 * MESSAGES + 2
        tables = ("sessions", "messages", "audience", "time_ranges", "participants", "writers")
        for table in (*tables, "memory"):
            assert outsider.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
        assert (await add_session(store)).last_seq == 0
