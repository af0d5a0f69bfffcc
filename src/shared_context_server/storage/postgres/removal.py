"""Removing rows in small steps, so that other writers get their turn between two of them."""

from __future__ import annotations

from datetime import datetime

from shared_context_server.storage.postgres.changes import KEPT_CHANGES
from shared_context_server.storage.postgres.horizon import read_last_given
from shared_context_server.storage.postgres.pool import Connection
from shared_context_server.storage.rows import encode_time

STEP_ROWS = 500  # rows of one transaction: some milliseconds

_CONTENTS_OF_SESSION = (
    """
    DELETE FROM messages WHERE id IN (SELECT id FROM messages WHERE session_id = $1 LIMIT $2)""",
    """
    DELETE FROM audience WHERE (session_id, name, seq) IN (
        SELECT session_id, name, seq FROM audience WHERE session_id = $1 LIMIT $2)""",
    "DELETE FROM memory WHERE id IN (SELECT id FROM memory WHERE session_id = $1 LIMIT $2)",
    """
    DELETE FROM leases WHERE (session_id, name) IN (
        SELECT session_id, name FROM leases WHERE session_id = $1 LIMIT $2)""",
    """
    DELETE FROM idempotency WHERE id IN (
        SELECT id FROM idempotency WHERE session_id = $1 LIMIT $2)""",
)
# Takes cursors and participants with it: they are as many as there are agents.
_REMOVE_SESSION = "DELETE FROM sessions WHERE id = $1 AND status = 'deleting'"
_LIST_DELETED = "SELECT id FROM sessions WHERE status = 'deleting'"

# Of two replicas that purge at once, each takes rows that the other does not.
_OLD_MEMORY = """
    DELETE FROM memory WHERE id IN (
        SELECT id FROM memory WHERE expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED)"""
_OLD_CREDENTIALS = """
    DELETE FROM credentials WHERE id IN (
        SELECT id FROM credentials WHERE expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED)"""
_OLD_ANSWERS = """
    DELETE FROM idempotency WHERE id IN (
        SELECT id FROM idempotency WHERE created_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)"""
_OLD_AUDIT = """
    DELETE FROM audit_log WHERE id IN (
        SELECT id FROM audit_log WHERE created_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)"""
_OLD_CHANGES = """
    DELETE FROM changes WHERE id IN (
        SELECT id FROM changes WHERE id <= $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)"""


async def remove_step(connection: Connection, session_id: str) -> int:
    """Remove some rows of a session that is marked as deleted; 0 when nothing of it is left."""
    for statement in _CONTENTS_OF_SESSION:
        if removed := await _delete(connection, statement, session_id):
            return removed
    await connection.execute(_REMOVE_SESSION, session_id)
    return 0


async def list_deleted(connection: Connection) -> list[str]:
    """Sessions whose removal was begun and, so far, not finished."""
    return [row[0] for row in await connection.fetch(_LIST_DELETED)]


async def purge_step(
    connection: Connection,
    *,
    expired_before: datetime,
    idempotency_before: datetime,
    audit_before: datetime,
) -> int:
    """Remove some old rows of one table; 0 when there are none in any."""
    last_change = await read_last_given(connection, "changes")
    for statement, bound in (
        (_OLD_MEMORY, encode_time(expired_before)),
        (_OLD_CREDENTIALS, encode_time(expired_before)),
        (_OLD_ANSWERS, encode_time(idempotency_before)),
        (_OLD_AUDIT, encode_time(audit_before)),
        (_OLD_CHANGES, last_change - KEPT_CHANGES),
    ):
        if removed := await _delete(connection, statement, bound):
            return removed
    return 0


async def _delete(connection: Connection, statement: str, bound: str | int) -> int:
    status = await connection.execute(statement, bound, STEP_ROWS)
    return int(status.rpartition(" ")[2])  # "DELETE 17"
