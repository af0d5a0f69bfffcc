"""Message retention on PostgreSQL: remove the messages at the beginning of a session that are old."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

from datetime import datetime

from shared_context_server.models import Caller
from shared_context_server.storage.codec import encode_time
from shared_context_server.storage.contract import (
    AuditExpiry,
    ExaminedSessions,
    ExpiryStep,
    Removal,
)
from shared_context_server.storage.postgres.audit import add_audit
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.statements import Statement
from shared_context_server.storage.postgres.engine.work import Subject, reads, writes
from shared_context_server.storage.postgres.sessions import CAN_SEE_SESSION
from shared_context_server.storage.rules.audience import session_rights
from shared_context_server.storage.rules.expiry import (
    EXPIRING_COLUMNS,
    STEP_ROWS,
    ChosenStep,
    choose_step,
)
from shared_context_server.storage.rules.pages import TIME_RANGE_SEQS
from shared_context_server.storage.rules.sessions import examined, place_after

_EXAMINE = Statement("""
    SELECT s.id, s.created_at, coalesce((
        SELECT created_at FROM messages WHERE session_id = s.id AND seq = s.first_seq
    ) < :expired_before::bigint, FALSE)
    FROM sessions AS s
    WHERE s.created_at < :expired_before::bigint AND s.status <> 'deleting'
      AND (s.created_at, s.id) > (:after_at, :after_id)
    ORDER BY s.created_at, s.id LIMIT :limit""")
# While it is locked, no message is added, and no other process removes any. The others are separate
# statements, which see what was committed while the lock was waited for.
_LOCK = Statement("""
    SELECT first_seq, greatest(expired_up_to, first_seq - 1)
    FROM sessions WHERE id = :session_id AND status <> 'deleting' FOR NO KEY UPDATE""")
_FIND_LAST = Statement("""
    SELECT seq FROM messages WHERE session_id = :session_id ORDER BY seq DESC LIMIT 1""")
_FIND_RANGE = Statement("""
    SELECT up_to_seq FROM time_ranges
    WHERE session_id = :session_id AND up_to_seq >= :first_seq AND latest >= :expired_before
    ORDER BY up_to_seq LIMIT 1""")
_FIND_FIRST_KEPT = Statement("""
    SELECT seq FROM messages
    WHERE session_id = :session_id AND seq >= :from_seq AND created_at >= :expired_before
    ORDER BY seq LIMIT 1""")
_ANNOUNCE = Statement("UPDATE sessions SET expired_up_to = :up_to_seq WHERE id = :session_id")
_LIST_FIRST = Statement(f"""
    SELECT {EXPIRING_COLUMNS},
           octet_length(content) + octet_length(metadata) + octet_length(recipients)
    FROM messages
    WHERE session_id = :session_id AND seq >= :first_seq AND seq <= :up_to_seq
    ORDER BY seq LIMIT :limit""")
_REMOVE = Statement("DELETE FROM messages WHERE session_id = :session_id AND seq <= :up_to_seq")
# All but the last one of those that are removed; see the schema.
_REMOVE_AUDIENCE = Statement("""
    DELETE FROM audience AS removed USING (
        SELECT names.name, (
            SELECT max(seq) FROM audience
            WHERE session_id = :session_id AND name = names.name AND seq <= :up_to_seq
        ) AS last_seq
        FROM unnest(:names::text[]) AS names (name)
    ) AS kept
    WHERE removed.session_id = :session_id AND removed.name = kept.name
      AND removed.seq < kept.last_seq""")
_REMOVE_RANGES = Statement("""
    DELETE FROM time_ranges WHERE session_id = :session_id AND up_to_seq <= :up_to_seq""")
_SET_FIRST = Statement("""
    UPDATE sessions
    SET first_seq = :up_to_seq::bigint + 1, removed_id = :last_id, removed_at = :last_at
    WHERE id = :session_id""")
_GET_REMOVED_ID = Statement("SELECT removed_id FROM sessions WHERE id = :session_id")
_LIST_REMOVALS = Statement(f"""
    SELECT s.id, s.first_seq, s.removed_id FROM sessions AS s
    WHERE s.removed_id > 0 AND s.removed_id > :after_id AND s.status <> 'deleting'
      AND {CAN_SEE_SESSION}
    ORDER BY s.removed_id LIMIT :limit""")


class Expiry(Subject):
    """Removes old messages. See contract/expiry.py."""

    @reads
    async def examine(
        self,
        connection: Connection,
        expired_before: datetime,
        *,
        limit: int,
        after: tuple[datetime, str] | None = None,
    ) -> ExaminedSessions:
        rows = await connection.fetch(
            *_EXAMINE(
                expired_before=encode_time(expired_before),
                **place_after(after),
                limit=limit,
            )
        )
        return examined(rows, limit)

    @writes
    async def remove_some(
        self,
        connection: Connection,
        session_id: str,
        expired_before: datetime,
        audit: AuditExpiry | None,
    ) -> ExpiryStep:
        row = await connection.fetchrow(*_LOCK(session_id=session_id))
        if row is None:
            return ExpiryStep(0, has_more=False)
        first_seq, announced_up_to = row
        before, expired_up_to = encode_time(expired_before), announced_up_to
        if audit is not None:
            found = await _find_last_expired(connection, session_id, first_seq, before)
            expired_up_to = max(found, announced_up_to)
        step = await _choose(connection, session_id, first_seq, expired_up_to, before)
        if expired_up_to > announced_up_to:
            await connection.execute(*_ANNOUNCE(session_id=session_id, up_to_seq=expired_up_to))
        if step.count:
            await _remove(connection, session_id, step)
            ends = {"up_to_seq": step.up_to_seq, "last_id": step.last_id, "last_at": step.last_at}
            await connection.execute(*_SET_FIRST(session_id=session_id, **ends))
        if audit is not None and expired_up_to > announced_up_to:
            await add_audit(connection, audit(announced_up_to + 1, expired_up_to))
        return ExpiryStep(step.count, has_more=0 < step.up_to_seq < expired_up_to)

    @reads
    async def get_removed_id(self, connection: Connection, session_id: str) -> int:
        found: int | None = await connection.fetchval(*_GET_REMOVED_ID(session_id=session_id))
        return found or 0

    @reads
    async def list_removals(
        self, connection: Connection, caller: Caller, *, after_id: int, limit: int
    ) -> list[Removal]:
        bounds = {**session_rights(caller), "after_id": after_id, "limit": limit}
        return [Removal(*row) for row in await connection.fetch(*_LIST_REMOVALS(**bounds))]


async def _find_last_expired(
    connection: Connection, session_id: str, first_seq: int, expired_before: int
) -> int:
    """Return the seq before the first message that is not expired. Whole rows of time_ranges are
    passed over, so this reads no more than a thousand messages."""
    bounds = {
        "session_id": session_id,
        "first_seq": first_seq,
        "expired_before": expired_before,
    }
    last_seq = await connection.fetchval(*_FIND_LAST(**bounds))
    if last_seq is None:
        return first_seq - 1
    up_to_seq = await connection.fetchval(*_FIND_RANGE(**bounds))
    whole = last_seq // TIME_RANGE_SEQS * TIME_RANGE_SEQS
    from_seq = (whole if up_to_seq is None else up_to_seq - TIME_RANGE_SEQS) + 1
    kept = await connection.fetchval(*_FIND_FIRST_KEPT(**bounds, from_seq=max(first_seq, from_seq)))
    return int(last_seq if kept is None else kept - 1)


async def _choose(
    connection: Connection, session_id: str, first_seq: int, up_to_seq: int, expired_before: int
) -> ChosenStep:
    rows = await connection.fetch(
        *_LIST_FIRST(
            session_id=session_id, first_seq=first_seq, up_to_seq=up_to_seq, limit=STEP_ROWS
        )
    )
    return choose_step(rows, expired_before)


async def _remove(connection: Connection, session_id: str, step: ChosenStep) -> None:
    """Remove the messages of a step, and what is derived from them."""
    bounds = {"session_id": session_id, "up_to_seq": step.up_to_seq}
    await connection.execute(*_REMOVE(**bounds))
    await connection.execute(*_REMOVE_AUDIENCE(**bounds, names=sorted(step.names)))
    await connection.execute(*_REMOVE_RANGES(**bounds))
