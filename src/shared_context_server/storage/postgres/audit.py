"""The audit log on PostgreSQL."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

from itertools import takewhile

from shared_context_server.models import AuditEntry
from shared_context_server.storage.audit_rows import AUDIT_CHAIN, AUDIT_ENTRY, to_audit_entry
from shared_context_server.storage.codec import MAX_INTEGER, clamp, encode_json, encode_time
from shared_context_server.storage.contract import AuditChain, AuditQuery
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.statements import Statement
from shared_context_server.storage.postgres.engine.work import (
    Subject,
    reads,
    reads_snapshot,
    writes,
)

# The trigger of the table chains the entry.
_ADD = Statement("""
    INSERT INTO audit_log (created_at, event_type, agent_id, session_id, details)
    VALUES (:created_at, :event_type, :agent_id, :session_id, :details)""")
_LIST = Statement(f"""
    SELECT {AUDIT_ENTRY} FROM audit_log
    WHERE id < :before_id
      AND created_at >= :start_time
      AND (:session_id::text IS NULL OR session_id = :session_id)
      AND (:agent_id::text IS NULL OR agent_id = :agent_id)
      AND (:event_type::text IS NULL OR event_type = :event_type)
    ORDER BY id DESC LIMIT :limit""")
_FIND_CHAIN = Statement(f"SELECT {AUDIT_CHAIN} FROM audit_chain WHERE id = 1")
_LOCK_CHAIN = Statement("SELECT 1 FROM audit_chain WHERE id = 1 FOR UPDATE")
_SET_ANCHOR = Statement("UPDATE audit_chain SET anchor_id = :id, anchor_hash = :hash WHERE id = 1")
_LIST_OLDEST = Statement("SELECT id, created_at, hash FROM audit_log ORDER BY id LIMIT :limit")
_REMOVE = Statement("DELETE FROM audit_log WHERE id <= :id")


async def add_audit(connection: Connection, entry: AuditEntry) -> None:
    """Add the entry, as the last step of a transaction: all others that add one wait for its commit."""
    parameters = {
        "created_at": encode_time(entry.timestamp),
        "event_type": entry.event_type,
        "agent_id": entry.agent_id,
        "session_id": entry.session_id,
        "details": encode_json(entry.details),
    }
    await connection.execute(*_ADD(**parameters))


class Audit(Subject):
    """The audit log. See contract/audit.py."""

    @reads
    async def list_newest(self, connection: Connection, query: AuditQuery) -> list[AuditEntry]:
        return await _list_newest(connection, query)

    @reads_snapshot
    async def list_with_chain(
        self, connection: Connection, query: AuditQuery
    ) -> tuple[list[AuditEntry], AuditChain | None]:
        row = await connection.fetchrow(*_FIND_CHAIN())
        entries = await _list_newest(connection, query)
        return entries, None if row is None else AuditChain(*row)

    @writes
    async def add(self, connection: Connection, entry: AuditEntry) -> None:
        await add_audit(connection, entry)


async def _list_newest(connection: Connection, query: AuditQuery) -> list[AuditEntry]:
    parameters = {
        "before_id": MAX_INTEGER if query.before_id is None else clamp(query.before_id),
        "start_time": -MAX_INTEGER if query.start_time is None else encode_time(query.start_time),
        "session_id": query.session_id,
        "agent_id": query.agent_id,
        "event_type": query.event_type,
        "limit": clamp(query.limit),
    }
    rows = await connection.fetch(*_LIST(**parameters))
    return [to_audit_entry(row) for row in rows]


async def purge_audit(connection: Connection, before: int, limit: int) -> int:
    """Remove the oldest entries, up to `limit`, and anchor the chain at the last of them. Ends at the
    first that is not older than `before`, because the chain must have no gap. Return the number."""
    await connection.execute(*_LOCK_CHAIN())  # one replica at a time, and none that adds
    oldest = await connection.fetch(*_LIST_OLDEST(limit=limit))
    old = list(takewhile(lambda row: row[1] < before, oldest))
    if old:
        last_id, _, last_hash = old[-1]
        await connection.execute(*_REMOVE(id=last_id))
        if last_hash:
            await connection.execute(*_SET_ANCHOR(id=last_id, hash=last_hash))
    return len(old)
