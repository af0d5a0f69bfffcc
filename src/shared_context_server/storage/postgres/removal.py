"""Delete rows in small steps on PostgreSQL, so that other writers get their turn in between."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

from datetime import datetime
from functools import partial

from shared_context_server.storage.codec import encode_time
from shared_context_server.storage.postgres.audit import purge_audit
from shared_context_server.storage.postgres.changes import KEPT_CHANGES
from shared_context_server.storage.postgres.engine.commit_watermark import read_last_given
from shared_context_server.storage.postgres.engine.pool import Connection, Mode, Pool
from shared_context_server.storage.postgres.engine.statements import Statement

STEP_ROWS = 500  # of each table in one transaction: some milliseconds

# By ctid, in the order of an index: with a self-join, or without an order, PostgreSQL may read the
# whole table for each step.
_CONTENTS_OF_SESSION = tuple(
    Statement(f"""
    DELETE FROM {table} WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM {table} WHERE session_id = :bound ORDER BY session_id, {key} LIMIT :limit))""")
    for table, key in (
        ("messages", "seq"),
        ("audience", "name, seq"),
        ("writers", "name, agent_id"),
        ("memory", "owner, key"),
        ("leases", "name"),
        ("tasks", "id"),
        ("task_dependents", "depends_on, task_id"),
        ("idempotency", "agent_id, key"),
    )
)
# A lock lets one replica at a time remove a session. Otherwise one that skips the rows which another
# is removing would find none left, and delete the session before its rows.
_TAKE_TURNS = Statement(
    "SELECT 1 FROM sessions WHERE id = :session_id AND status = 'deleting' FOR UPDATE"
)
# Also deletes cursors, participants, time_ranges and task_counts, of which there are few.
_REMOVE_SESSION = Statement("DELETE FROM sessions WHERE id = :session_id AND status = 'deleting'")
_LIST_DELETED = Statement("SELECT id FROM sessions WHERE status = 'deleting'")


def _remove_old(table: str, is_old: str, order: str) -> Statement:
    """Return SQL that removes some old rows. Two replicas that purge at once take different rows."""
    return Statement(f"""
    DELETE FROM {table} WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM {table} WHERE {is_old} ORDER BY {order} LIMIT :limit
        FOR UPDATE SKIP LOCKED))""")


_OLD_MEMORY = _remove_old("memory", "expires_at <= :bound", "expires_at")
_OLD_CREDENTIALS = _remove_old("credentials", "expires_at <= :bound", "expires_at")
_OLD_ANSWERS = _remove_old("idempotency", "created_at < :bound", "created_at")
_OLD_CHANGES = _remove_old("changes", "id <= :bound", "id")


async def remove_step(connection: Connection, session_id: str) -> int:
    """Remove some rows of a session marked as deleted; return 0 when nothing is left of it."""
    if await connection.fetchrow(*_TAKE_TURNS(session_id=session_id)) is None:
        return 0
    # From all tables at once. Otherwise each later step would scan the dead rows of the tables that
    # were emptied before.
    removed = 0
    for statement in _CONTENTS_OF_SESSION:
        removed += await _delete(connection, statement, session_id)
    if removed == 0:
        await connection.execute(*_REMOVE_SESSION(session_id=session_id))
    return removed


async def remove_session(pool: Pool, session_id: str) -> int:
    """Remove a session marked as deleted, in steps; return the number of rows."""
    total = 0
    step = partial(remove_step, session_id=session_id)
    while removed := await pool.run(Mode.WRITE, step):
        total += removed
    return total


async def list_deleted(connection: Connection) -> list[str]:
    """Return the sessions whose removal was begun but not finished."""
    return [row[0] for row in await connection.fetch(*_LIST_DELETED())]


async def purge_step(
    connection: Connection,
    *,
    expired_before: datetime,
    idempotency_before: datetime,
    audit_before: datetime,
) -> int:
    """Remove some old rows of one table; return 0 when no table has any."""
    last_change = await read_last_given(connection, "changes")
    for statement, bound in (
        (_OLD_MEMORY, encode_time(expired_before)),
        (_OLD_CREDENTIALS, encode_time(expired_before)),
        (_OLD_ANSWERS, encode_time(idempotency_before)),
        (_OLD_CHANGES, last_change - KEPT_CHANGES),
    ):
        if removed := await _delete(connection, statement, bound):
            return removed
    return await purge_audit(connection, encode_time(audit_before), STEP_ROWS)


async def _delete(connection: Connection, statement: Statement, bound: str | int) -> int:
    status = await connection.execute(*statement(bound=bound, limit=STEP_ROWS))
    return int(status.rpartition(" ")[2])  # "DELETE 17"
