"""Where answers of idempotent calls are kept."""

from __future__ import annotations

from datetime import datetime

from shared_context_server.models import JsonObject, Session
from shared_context_server.storage.codec import encode_json, encode_time
from shared_context_server.storage.contract import SessionGuard
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.rules.idempotency import IdempotentCall

_FIND = """
    SELECT kind, fingerprint, answer FROM idempotency
    WHERE session_id = $1 AND agent_id = $2 AND key = $3"""
_ADD = """
    INSERT INTO idempotency (session_id, agent_id, key, kind, fingerprint, answer, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)"""


async def find_answer(
    connection: Connection,
    call: IdempotentCall,
    session: Session | None,
    guard: SessionGuard | None,
) -> JsonObject | None:
    """What the first such call answered, None if this is the first; raises as read_answer."""
    row = await connection.fetchrow(_FIND, call.place, call.agent_id, call.key)
    if row is None:
        return None
    return call.read_answer(row["kind"], row["fingerprint"], row["answer"], session, guard)


async def keep_answer(
    connection: Connection, call: IdempotentCall, answer: JsonObject, created_at: datetime
) -> None:
    """Collides with a first call that another transaction has made meanwhile."""
    await connection.execute(
        _ADD,
        call.place,
        call.agent_id,
        call.key,
        call.kind,
        call.fingerprint,
        encode_json(answer),
        encode_time(created_at),
    )
