"""A deletion that was cut off after it had been acknowledged, or just before."""

from __future__ import annotations

import sqlite3

import pytest

from shared_context_server.errors import Conflict, SessionNotFound
from shared_context_server.settings import Settings
from shared_context_server.storage.sqlite import open_sqlite, sessions
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
)

MESSAGES = 700  # more than one step


async def test_a_deletion_cut_off_is_finished_by_purging(
    settings: Settings, outsider: sqlite3.Connection
) -> None:
    async with open_sqlite(settings) as storage:
        await add_session(storage)
        for _ in range(MESSAGES):
            await add_message(storage)
        place = address("key", session_id="session_1")
        await storage.write_memory(place, ALICE, put(1), now=NOON, guard=allow)
        # As a process does that dies after the first of its steps.
        sessions.mark_deleted(outsider, "session_1", allow, make_audit())

        with pytest.raises(SessionNotFound):
            await storage.get_session("session_1")
        with pytest.raises(SessionNotFound):
            await add_message(storage)
        with pytest.raises(SessionNotFound):
            await storage.get_memory(place, now=NOON, guard=allow)
        for created_by in (None, "alice"):
            page = await storage.list_sessions(ADMIN, status=None, created_by=created_by, limit=9)
            assert not page.items
        assert (await storage.get_stats(active_since=NOON)).active_sessions == 0
        with pytest.raises(Conflict):
            await add_session(storage)

        purged = await storage.purge(
            expired_before=at(-9), idempotency_before=at(-9), audit_before=at(-9)
        )
        # Messages, their audience (two rows each), the writer, and the memory.
        assert purged == 3 * MESSAGES + 2
        tables = ("sessions", "messages", "audience", "time_ranges", "participants", "writers")
        for table in (*tables, "memory"):
            assert outsider.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
        assert (await add_session(storage)).last_seq == 0
