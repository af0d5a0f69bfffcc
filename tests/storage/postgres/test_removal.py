"""Removing what is deleted or has expired, by several replicas at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shared_context_server.storage import Store
from shared_context_server.storage.codec import encode_time
from shared_context_server.storage.postgres import removal
from tests.storage.builders import ALICE, NOON, add_session, address, allow, at, make_audit, put
from tests.storage.postgres.conftest import until_another_waits
from tests.until import PATIENCE_S

Connection = Any  # asyncpg's own is generic for type checkers only

_FILL = """
    SET session_replication_role = replica;  -- no triggers
    INSERT INTO messages (session_id, seq, sender, sender_type, visibility, created_at, recipients,
                          metadata, content)
        SELECT 'session_1', n, 'a', 'a', 'public', n, '[]', '{}', 'x' FROM generate_series(1, 20000) n;
    INSERT INTO audience SELECT 'session_1', '*', n, n, n FROM generate_series(1, 20000) n;
    INSERT INTO writers SELECT 'session_1', '*', n, n FROM generate_series(1, 20000) n;
    INSERT INTO memory (session_id, owner, key, version, created_at, updated_at, updated_by,
                        expires_at, size_bytes, metadata, value)
        SELECT 'session_1', '', n, 1, 0, 0, 'a', n, 1, '{}', '1' FROM generate_series(1, 20000) n;
    INSERT INTO leases SELECT 'session_1', n, NULL, 1, 0, n FROM generate_series(1, 20000) n;
    INSERT INTO idempotency (session_id, agent_id, key, kind, fingerprint, answer, created_at)
        SELECT 'session_1', 'a', n, 'x', 'x', '{}', n FROM generate_series(1, 20000) n;
    INSERT INTO tasks (session_id, id, version, state, priority, assignee, waiting_for, created_by,
                       created_at, instance, depends_on, title, metadata, body, result)
        SELECT 'session_1', n, 1, 'done', 0, '', 0, 'a', 0, '', '[]', 't', '{}', '', 'null'
        FROM generate_series(1, 20000) n;
    INSERT INTO task_dependents SELECT 'session_1', n, n FROM generate_series(1, 20000) n;
    ANALYZE messages, audience, writers, memory, leases, idempotency, tasks, task_dependents"""


async def test_a_step_reads_no_table_from_end_to_end(connection: Connection) -> None:
    """Also where all is of one session, or old, so that a planner expects to be done soon."""
    await connection.execute(_FILL)
    statements = [(statement.sql, "TEXT") for statement in removal._CONTENTS_OF_SESSION]
    statements += [(removal._OLD_MEMORY.sql, "BIGINT"), (removal._OLD_ANSWERS.sql, "BIGINT")]
    for number, (statement, kind) in enumerate(statements):
        await connection.execute(f"PREPARE step_{number} ({kind}, BIGINT) AS {statement}")
        bound = "'session_1'" if kind == "TEXT" else "20000"
        for plans in ("custom", "generic"):
            await connection.execute(f"SET plan_cache_mode = force_{plans}_plan")
            plan = await connection.fetch(f"EXPLAIN EXECUTE step_{number} ({bound}, 500)")
            assert "Seq Scan" not in "\n".join(row[0] for row in plan), statement


async def test_two_replicas_that_remove_a_session_leave_nothing_of_it(
    store: Store, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one meets a row that the first is removing, which must not look like the last."""
    monkeypatch.setattr(removal, "STEP_ROWS", 1)
    await add_session(store)
    for key in ("a", "b", "c"):
        place = address(key, session_id="session_1")
        await store.memory.write(place, ALICE, put(1), now=NOON, guard=allow)
    await connection.execute("UPDATE sessions SET status = 'deleting'")
    async with connection.transaction():
        assert await removal.remove_step(connection, "session_1") == 1
        second = asyncio.create_task(
            store.maintenance.purge(expired_before=NOON, idempotency_before=NOON, audit_before=NOON)
        )
        await until_another_waits(connection)
    assert await asyncio.wait_for(second, PATIENCE_S) == 2
    assert await connection.fetchval("SELECT count(*) FROM memory") == 0
    assert await connection.fetchval("SELECT count(*) FROM sessions") == 0


async def test_a_session_is_not_idle_if_a_message_is_committed_while_its_deletion_waits(
    store: Store, connection: Connection
) -> None:
    await add_session(store)
    later = at(60)
    async with connection.transaction():
        await connection.execute("SELECT 1 FROM sessions WHERE id = 'session_1' FOR NO KEY UPDATE")
        await connection.execute(
            "INSERT INTO messages (session_id, seq, sender, sender_type, visibility, created_at, "
            "recipients, metadata, content) "
            "VALUES ('session_1', 1, 'a', 'a', 'public', $1, '[]', '{}', 'x')",
            encode_time(later),
        )
        deletion = asyncio.create_task(
            store.sessions.delete_idle("session_1", later, make_audit("session_expired"))
        )
        await until_another_waits(connection)
    assert await asyncio.wait_for(deletion, PATIENCE_S) is False
    assert (await store.sessions.get("session_1")).last_seq == 1
