"""Delete rows in small steps on SQLite, so that other writers get their turn in between."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from shared_context_server.storage.codec import encode_time
from shared_context_server.storage.sqlite.audit import purge_audit
from shared_context_server.storage.sqlite.changes import KEPT_CHANGES
from shared_context_server.storage.sqlite.engine.work import Engine

STEP_ROWS = 500  # rows of one write operation: some milliseconds


@dataclass(frozen=True, slots=True)
class _Removal:
    """Two statements that remove rows of one table.

    With DELETE … WHERE id IN (SELECT …), SQLite may walk the whole table, if that was small when
    statistics were last gathered.
    """

    select: str
    delete: str

    def run(self, connection: sqlite3.Connection, parameters: dict[str, Any]) -> int:
        """Remove up to STEP_ROWS rows; return the number."""
        found = connection.execute(self.select, parameters | {"limit": STEP_ROWS}).fetchall()
        connection.executemany(self.delete, found)
        return len(found)


_CONTENTS_OF_SESSION = (
    _Removal(
        "SELECT id FROM messages WHERE session_id = :session_id LIMIT :limit",
        "DELETE FROM messages WHERE id = ?",
    ),
    _Removal(
        "SELECT session_id, name, seq FROM audience WHERE session_id = :session_id LIMIT :limit",
        "DELETE FROM audience WHERE session_id = ? AND name = ? AND seq = ?",
    ),
    _Removal(
        "SELECT session_id, name, agent_id FROM writers WHERE session_id = :session_id LIMIT :limit",
        "DELETE FROM writers WHERE session_id = ? AND name = ? AND agent_id = ?",
    ),
    _Removal(
        "SELECT id FROM memory WHERE session_id = :session_id LIMIT :limit",
        "DELETE FROM memory WHERE id = ?",
    ),
    _Removal(
        "SELECT session_id, name FROM leases WHERE session_id = :session_id LIMIT :limit",
        "DELETE FROM leases WHERE session_id = ? AND name = ?",
    ),
    _Removal(
        "SELECT session_id, id FROM tasks WHERE session_id = :session_id LIMIT :limit",
        "DELETE FROM tasks WHERE session_id = ? AND id = ?",
    ),
    _Removal(
        """
        SELECT session_id, depends_on, task_id FROM task_dependents
        WHERE session_id = :session_id LIMIT :limit""",
        "DELETE FROM task_dependents WHERE session_id = ? AND depends_on = ? AND task_id = ?",
    ),
    _Removal(
        "SELECT id FROM idempotency WHERE session_id = :session_id LIMIT :limit",
        "DELETE FROM idempotency WHERE id = ?",
    ),
)
# Also deletes cursors, participants, time_ranges and task_counts, of which there are few.
_REMOVE_SESSION = "DELETE FROM sessions WHERE id = :session_id AND status = 'deleting'"
_LIST_DELETED = "SELECT id FROM sessions WHERE status = 'deleting'"

_OLD_ROWS = (
    _Removal(
        """
        SELECT id FROM memory INDEXED BY memory_by_expiry
        WHERE expires_at <= :expired_before LIMIT :limit""",
        "DELETE FROM memory WHERE id = ?",
    ),
    _Removal(
        """
        SELECT id FROM credentials INDEXED BY credentials_by_expiry
        WHERE expires_at <= :expired_before LIMIT :limit""",
        "DELETE FROM credentials WHERE id = ?",
    ),
    _Removal(
        """
        SELECT id FROM idempotency INDEXED BY idempotency_by_age
        WHERE created_at < :idempotency_before LIMIT :limit""",
        "DELETE FROM idempotency WHERE id = ?",
    ),
    _Removal(
        """
        SELECT id FROM changes
        WHERE id <= (SELECT seq FROM sqlite_sequence WHERE name = 'changes') - :kept_changes
        ORDER BY id LIMIT :limit""",
        "DELETE FROM changes WHERE id = ?",
    ),
)


def remove_step(connection: sqlite3.Connection, session_id: str) -> int:
    """Remove some rows of a session marked as deleted; return 0 when nothing is left of it."""
    parameters = {"session_id": session_id}
    for removal in _CONTENTS_OF_SESSION:
        if removed := removal.run(connection, parameters):
            return removed
    connection.execute(_REMOVE_SESSION, parameters)
    return 0


async def remove_session(engine: Engine, session_id: str) -> int:
    """Remove a session marked as deleted, in steps; return the number of rows."""
    total = 0
    step = partial(remove_step, session_id=session_id)
    while removed := await engine.writer.run(step):
        total += removed
    return total


def list_deleted(connection: sqlite3.Connection) -> list[str]:
    """Return the sessions whose removal was begun but not finished."""
    return [row[0] for row in connection.execute(_LIST_DELETED)]


def purge_step(
    connection: sqlite3.Connection,
    *,
    expired_before: datetime,
    idempotency_before: datetime,
    audit_before: datetime,
) -> int:
    """Remove some old rows of one table; return 0 when no table has any."""
    parameters = {
        "expired_before": encode_time(expired_before),
        "idempotency_before": encode_time(idempotency_before),
        "kept_changes": KEPT_CHANGES,
    }
    for removal in _OLD_ROWS:
        if removed := removal.run(connection, parameters):
            return removed
    return purge_audit(connection, encode_time(audit_before), STEP_ROWS)
