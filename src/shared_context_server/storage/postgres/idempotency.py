"""Store and find the answers of calls with an idempotency key, on PostgreSQL."""

from __future__ import annotations

from datetime import datetime

from shared_context_server.models import JsonObject
from shared_context_server.storage.codec import encode_json, encode_time
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.statements import Statement
from shared_context_server.storage.rules.idempotency import IdempotentCall, Record

_FIND = Statement("""
    SELECT kind, fingerprint, answer FROM idempotency
    WHERE session_id = :session_id AND agent_id = :agent_id AND key = :key""")
_ADD = Statement("""
    INSERT INTO idempotency (session_id, agent_id, key, kind, fingerprint, answer, created_at)
    VALUES (:session_id, :agent_id, :key, :kind, :fingerprint, :answer, :created_at)""")


async def find_record(connection: Connection, call: IdempotentCall) -> Record | None:
    """Return the record of the first call with this key; None if this is the first."""
    row = await connection.fetchrow(
        *_FIND(session_id=call.stored_session_id, agent_id=call.agent_id, key=call.key)
    )
    return None if row is None else (row["kind"], row["fingerprint"], row["answer"])


async def keep_answer(
    connection: Connection, call: IdempotentCall, answer: JsonObject, created_at: datetime
) -> None:
    """Store the answer. Conflicts with a first call that another transaction has made meanwhile."""
    await connection.execute(
        *_ADD(
            session_id=call.stored_session_id,
            agent_id=call.agent_id,
            key=call.key,
            kind=call.kind,
            fingerprint=call.fingerprint,
            answer=encode_json(answer),
            created_at=encode_time(created_at),
        )
    )
