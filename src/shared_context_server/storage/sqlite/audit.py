"""The audit log on SQLite."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

import sqlite3

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
from shared_context_server.storage.sqlite.engine.work import Subject, reads, writes

_ADD = """
    INSERT INTO audit_log (created_at, event_type, agent_id, session_id, details)
    VALUES (:created_at, :event_type, :agent_id, :session_id, :details)"""
_LIST = f"""
    SELECT {AUDIT_ENTRY} FROM audit_log
    WHERE id < :before_id
      AND created_at >= :start_time
      AND (:session_id IS NULL OR session_id = :session_id)
      AND (:agent_id IS NULL OR agent_id = :agent_id)
      AND (:event_type IS NULL OR event_type = :event_type)
    ORDER BY id DESC LIMIT :limit"""


class Audit(Subject):
    """The audit log. See contract/audit.py."""

    @reads
    def list_newest(self, connection: sqlite3.Connection, query: AuditQuery) -> list[AuditEntry]:
        rows = connection.execute(
            _LIST,
            {
                "before_id": MAX_INTEGER if query.before_id is None else clamp(query.before_id),
                "start_time": -MAX_INTEGER
                if query.start_time is None
                else encode_time(query.start_time),
                "session_id": query.session_id,
                "agent_id": query.agent_id,
                "event_type": query.event_type,
                "limit": query.limit,
            },
        )
        return [to_audit_entry(row) for row in rows]

    @writes
    def add(self, connection: sqlite3.Connection, entry: AuditEntry) -> None:
        add_audit(connection, entry)


def add_audit(connection: sqlite3.Connection, entry: AuditEntry) -> None:
    connection.execute(
        _ADD,
        {
            "created_at": encode_time(entry.timestamp),
            "event_type": entry.event_type,
            "agent_id": entry.agent_id,
            "session_id": entry.session_id,
            "details": encode_json(entry.details),
        },
    )
