"""Store and find the answers of calls with an idempotency key, on SQLite."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from shared_context_server.models import JsonObject
from shared_context_server.storage.codec import encode_json, encode_time
from shared_context_server.storage.rules.idempotency import IdempotentCall, Record

_FIND = """
    SELECT kind, fingerprint, answer FROM idempotency
    WHERE session_id = :session_id AND agent_id = :agent_id AND key = :key"""
_ADD = """
    INSERT INTO idempotency (session_id, agent_id, key, kind, fingerprint, answer, created_at)
    VALUES (:session_id, :agent_id, :key, :kind, :fingerprint, :answer, :created_at)"""


def find_record(connection: sqlite3.Connection, call: IdempotentCall) -> Record | None:
    """Return the record of the first call with this key; None if this is the first."""
    found: Record | None = connection.execute(_FIND, _where(call)).fetchone()
    return found


def keep_answer(
    connection: sqlite3.Connection, call: IdempotentCall, answer: JsonObject, created_at: datetime
) -> None:
    connection.execute(
        _ADD,
        {
            **_where(call),
            "kind": call.kind,
            "fingerprint": call.fingerprint,
            "answer": encode_json(answer),
            "created_at": encode_time(created_at),
        },
    )


def _where(call: IdempotentCall) -> dict[str, str]:
    return {"session_id": call.stored_session_id, "agent_id": call.agent_id, "key": call.key}
