"""The audit log on PostgreSQL."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

from shared_context_server.models import AuditEntry
from shared_context_server.storage.codec import (
    AUDIT_ENTRY,
    MAX_INTEGER,
    clamp,
    encode_json,
    encode_time,
    to_audit_entry,
)
from shared_context_server.storage.contract import AuditQuery
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.statements import Statement
from shared_context_server.storage.postgres.engine.work import Subject, reads, writes

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


async def add_audit(connection: Connection, entry: AuditEntry) -> None:
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
        parameters = {
            "before_id": MAX_INTEGER if query.before_id is None else clamp(query.before_id),
            "start_time": -MAX_INTEGER
            if query.start_time is None
            else encode_time(query.start_time),
            "session_id": query.session_id,
            "agent_id": query.agent_id,
            "event_type": query.event_type,
            "limit": clamp(query.limit),
        }
        rows = await connection.fetch(*_LIST(**parameters))
        return [to_audit_entry(row) for row in rows]

    @writes
    async def add(self, connection: Connection, entry: AuditEntry) -> None:
        await add_audit(connection, entry)
