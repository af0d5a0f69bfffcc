"""Where answers of idempotent calls are kept."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from shared_context_server.models import JsonObject, Session
from shared_context_server.storage.codec import encode_json, encode_time
from shared_context_server.storage.contract import SessionGuard
from shared_context_server.storage.rules.idempotency import IdempotentCall

_FIND = """
    SELECT kind, fingerprint, answer FROM idempotency
    WHERE session_id = :session_id AND agent_id = :agent_id AND key = :key"""
_ADD = """
    INSERT INTO idempotency (session_id, agent_id, key, kind, fingerprint, answer, created_at)
    VALUES (:session_id, :agent_id, :key, :kind, :fingerprint, :answer, :created_at)"""


def find_answer(
    connection: sqlite3.Connection,
    call: IdempotentCall,
    session: Session | None,
    guard: SessionGuard | None,
) -> JsonObject | None:
    """What the first such call answered, None if this is the first; raises as read_answer."""
    row = connection.execute(_FIND, _where(call)).fetchone()
    if row is None:
        return None
    kind, fingerprint, answer = row
    return call.read_answer(kind, fingerprint, answer, session, guard)


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
    return {"session_id": call.place, "agent_id": call.agent_id, "key": call.key}
