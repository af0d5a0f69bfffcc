"""Sessions, participants and read cursors on PostgreSQL."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from shared_context_server.errors import Conflict, SessionNotFound, Unavailable
from shared_context_server.models import (
    AuditEntry,
    Caller,
    Session,
    SessionStatus,
    SessionSummary,
)
from shared_context_server.storage.codec import (
    MAX_INTEGER,
    SESSION,
    SESSION_TEXT_COLUMNS,
    decode_optional_time,
    encode_json,
    encode_time,
    to_session,
)
from shared_context_server.storage.contract import (
    ExaminedSessions,
    NewSession,
    Page,
    SessionContents,
    SessionGuard,
    Usage,
)
from shared_context_server.storage.postgres.audience import find_last_visible_seq, tally_query
from shared_context_server.storage.postgres.audit import add_audit
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.statements import Statement, within_bytes
from shared_context_server.storage.postgres.engine.work import (
    Subject,
    reads,
    reads_snapshot,
    writes,
)
from shared_context_server.storage.postgres.removal import remove_session
from shared_context_server.storage.rules.audience import audience_keys, session_rights
from shared_context_server.storage.rules.pages import page_budget, take_page
from shared_context_server.storage.rules.sessions import (
    examined,
    join_participants,
    place_after,
    require_seq_up_to,
)

Lock = Literal["KEY SHARE", "NO KEY UPDATE", "UPDATE"]
"""How a session is kept as it is until the end of the transaction. KEY SHARE: it is not closed or
deleted; for writes beside its log. NO KEY UPDATE: nor does its log grow. UPDATE: nothing of it
changes."""

_ADD = Statement("""
    INSERT INTO sessions (id, purpose, metadata, access, status, created_by, created_at, invited)
    VALUES (:id, :purpose, :metadata, :access, 'active', :created_by, :created_at, :invited)
    ON CONFLICT (id) DO NOTHING RETURNING id""")
_BY_ID = f"SELECT {SESSION} FROM sessions AS s WHERE s.id = :id AND s.status <> 'deleting'"
_FIND = Statement(_BY_ID)
_FIND_LOCKED: dict[Lock, Statement] = {
    "KEY SHARE": Statement(f"{_BY_ID} FOR KEY SHARE OF s"),
    "NO KEY UPDATE": _FIND,
    "UPDATE": Statement(f"{_BY_ID} FOR UPDATE OF s"),
}
_LOCK_LOG = Statement("SELECT 1 FROM sessions WHERE id = :id FOR NO KEY UPDATE")
_CLOSE = Statement("UPDATE sessions SET status = 'closed', closed_at = :closed_at WHERE id = :id")
_MARK_DELETED = Statement("UPDATE sessions SET status = 'deleting' WHERE id = :id")

CAN_SEE_SESSION = """(:is_admin OR (:may_use AND (
    s.access = 'open'
    OR s.created_by = :agent_id
    OR EXISTS (
        SELECT 1 FROM json_array_elements_text(s.invited::json) AS invited (member)
        WHERE invited.member = :agent_id
    )
)))"""
"""`policy.can_see_session` for session `s`. Wants session_rights."""

_NEWEST_VISIBLE = f"""
      AND (s.created_at, s.id) < (:before_at, :before_id) AND {CAN_SEE_SESSION}
    ORDER BY s.created_at DESC, s.id DESC LIMIT :limit"""
# By (status given?, creator given?), so that each walks the index that fits.
_LISTINGS = {
    (is_of_status, is_of_creator): Statement(
        within_bytes(
            SESSION,
            f"SELECT {SESSION} FROM sessions AS s WHERE {status} {creator} {_NEWEST_VISIBLE}",
            ("purpose", "metadata", "invited"),
            "created_at DESC, id DESC",
        )
    )
    for is_of_status, status in ((False, "s.status <> 'deleting'"), (True, "s.status = :status"))
    for is_of_creator, creator in ((False, ""), (True, "AND s.created_by = :created_by"))
}

# The summary of a page of sessions, in one round trip: the caller's cursor in each, the messages that
# it sees, and those of them that it has read or that were removed. Tallies count removed ones too.
_READ_UP_TO = """
    FROM unnest(:session_ids::text[]) WITH ORDINALITY AS listed (id, place)
    JOIN sessions AS s ON s.id = listed.id
    CROSS JOIN LATERAL (SELECT greatest((
        SELECT seq FROM cursors WHERE session_id = listed.id AND agent_id = :agent_id
    ), s.first_seq - 1) AS seq) AS cursor"""
_TALLIES = Statement(f"""
    SELECT visible.count - removed.count AS count, visible.newest_at,
           visible.count - known.count - own.count + known_own.count AS unread {_READ_UP_TO}
    CROSS JOIN LATERAL ({tally_query("listed.id", str(MAX_INTEGER))}) AS visible
    CROSS JOIN LATERAL ({tally_query("listed.id", "s.first_seq - 1")}) AS removed
    CROSS JOIN LATERAL ({tally_query("listed.id", "cursor.seq")}) AS known
    CROSS JOIN LATERAL ({tally_query("listed.id", str(MAX_INTEGER), ":agent_id::text")}) AS own
    CROSS JOIN LATERAL ({tally_query("listed.id", "cursor.seq", ":agent_id::text")}) AS known_own
    ORDER BY listed.place""")
_TALLIES_OF_ALL = Statement(f"""
    SELECT coalesce(newest.seq - s.first_seq + 1, 0) AS count,
           coalesce(newest.created_at, s.removed_at) AS newest_at,
           coalesce(newest.seq - cursor.seq, 0) - sent.count AS unread {_READ_UP_TO}
    CROSS JOIN LATERAL (
        SELECT count(*) AS count FROM messages
        WHERE session_id = listed.id AND sender = :agent_id::text AND seq > cursor.seq
    ) AS sent
    LEFT JOIN LATERAL (
        SELECT seq, created_at FROM messages WHERE session_id = listed.id ORDER BY seq DESC LIMIT 1
    ) AS newest ON TRUE
    ORDER BY listed.place""")
_LIST_WRITERS = Statement("""
    SELECT agent_id FROM participants WHERE session_id = :session_id ORDER BY first_seq
    LIMIT :limit::bigint""")
_LIST_VISIBLE_WRITERS = Statement("""
    SELECT agent_id FROM writers
    WHERE session_id = :session_id
      AND name IN (:name_public::text, :name_agent_only::text, :name_private::text)
    GROUP BY agent_id ORDER BY min(first_seq) LIMIT :limit::bigint""")

# Who reads is not active. A lease counts until it ends.
_IS_IDLE = """
    s.created_at < :idle_since
    AND coalesce(s.closed_at, 0) < :idle_since
    AND coalesce((
        SELECT created_at FROM messages WHERE session_id = s.id ORDER BY seq DESC LIMIT 1
    ), s.removed_at, 0) < :idle_since
    AND NOT EXISTS (SELECT 1 FROM memory WHERE session_id = s.id AND updated_at >= :idle_since)
    AND NOT EXISTS (SELECT 1 FROM leases WHERE session_id = s.id AND expires_at >= :idle_since)"""
_EXAMINE = Statement(f"""
    SELECT s.id, s.created_at, {_IS_IDLE} FROM sessions AS s
    WHERE s.created_at < :idle_since AND s.status <> 'deleting'
      AND (s.created_at, s.id) > (:after_at, :after_id)
    ORDER BY s.created_at, s.id LIMIT :limit""")
_MARK_IDLE = Statement(f"""
    UPDATE sessions AS s SET status = 'deleting'
    WHERE s.id = :id AND s.status <> 'deleting' AND {_IS_IDLE}""")
_LOCK = Statement("SELECT 1 FROM sessions WHERE id = :id FOR UPDATE")

_MEASURE = Statement("""
    SELECT
        (SELECT count(*) FROM memory WHERE session_id = :id
         AND (expires_at IS NULL OR expires_at > :now)),
        (SELECT coalesce(sum(count), 0)::bigint FROM task_counts WHERE session_id = :id),
        (SELECT count(*) FROM leases WHERE session_id = :id AND holder IS NOT NULL
         AND expires_at > :now),
        (SELECT count(*) FROM cursors WHERE session_id = :id)""")
_MEASURE_USAGE = Statement("""
    SELECT coalesce(sum(sessions), 0)::bigint, coalesce(sum(messages), 0)::bigint,
           coalesce(sum(memory_entries), 0)::bigint, coalesce(sum(bytes), 0)::bigint
    FROM (
        SELECT sessions, 0 AS messages, memory_entries, bytes
        FROM usage WHERE session_id = :session_id
        UNION ALL
        SELECT 0, messages, 0, bytes
        FROM participants WHERE session_id = :session_id
    ) AS stored""")
_FIND_CURSOR = Statement(
    "SELECT seq FROM cursors WHERE session_id = :session_id AND agent_id = :agent_id"
)
_SET_CURSOR = Statement("""
    INSERT INTO cursors (session_id, agent_id, seq) VALUES (:session_id, :agent_id, :seq)
    ON CONFLICT (session_id, agent_id) DO UPDATE SET seq = greatest(cursors.seq, excluded.seq)
    RETURNING seq""")


class Sessions(Subject):
    """Sessions, their participants and cursors. See contract/sessions.py."""

    @writes
    async def create(self, connection: Connection, new: NewSession, audit: AuditEntry) -> Session:
        parameters = {
            "id": new.id,
            "purpose": new.purpose,
            "metadata": encode_json(new.metadata),
            "access": new.access,
            "created_by": new.created_by,
            "created_at": encode_time(new.created_at),
            "invited": encode_json(new.invited),
        }
        if await connection.fetchrow(*_ADD(**parameters)) is None:
            raise Conflict(f"A session {new.id!r} already exists.", field="session_id")
        session = await use_session(connection, new.id)
        await add_audit(connection, audit)
        return session

    @reads_snapshot
    async def list_visible(
        self,
        connection: Connection,
        caller: Caller,
        *,
        status: SessionStatus | None,
        created_by: str | None,
        limit: int,
        before: tuple[datetime, str] | None = None,
    ) -> Page[SessionSummary]:
        statement = _LISTINGS[status is not None, created_by is not None]
        parameters = {
            **session_rights(caller),
            "status": status,
            "created_by": created_by,
            "before_at": encode_time(before[0]) if before else MAX_INTEGER,
            "before_id": before[1] if before else "",
            "limit": limit + 1,
            "max_bytes": page_budget(limit),
        }
        found = await connection.fetch(*statement(**parameters))
        rows, has_more = take_page(found, limit, SESSION_TEXT_COLUMNS)
        return Page(
            await summarize(connection, [to_session(row) for row in rows], caller), has_more
        )

    @writes
    async def close(
        self,
        connection: Connection,
        session_id: str,
        closed_at: datetime,
        guard: SessionGuard,
        audit: AuditEntry,
    ) -> Session:
        session = await use_session(connection, session_id, guard, lock="UPDATE")
        if session.status is SessionStatus.CLOSED:
            return session
        await connection.execute(*_CLOSE(id=session_id, closed_at=encode_time(closed_at)))
        closed = await use_session(connection, session_id)
        await add_audit(connection, audit)
        return closed

    @writes
    async def _mark_deleted(
        self, connection: Connection, session_id: str, guard: SessionGuard, audit: AuditEntry
    ) -> None:
        """Hide the session from all callers from now on; removal.py removes the rows."""
        await use_session(connection, session_id, guard, lock="UPDATE")
        await connection.execute(*_MARK_DELETED(id=session_id))
        await add_audit(connection, audit)

    @writes
    async def set_cursor(
        self,
        connection: Connection,
        session_id: str,
        caller: Caller,
        seq: int,
        guard: SessionGuard,
    ) -> tuple[int, int]:
        session = await use_session(connection, session_id, guard, lock="KEY SHARE")
        last_visible = session.last_seq
        if not caller.is_admin:
            keys = audience_keys(caller)
            last_visible = await find_last_visible_seq(connection, session_id, keys)
        require_seq_up_to(seq, last_visible, session)
        row = await connection.fetchrow(
            *_SET_CURSOR(session_id=session_id, agent_id=caller.agent_id, seq=max(seq, 0))
        )
        assert row is not None
        summary, *_ = await summarize(connection, [session], caller)
        return row[0], summary.unread

    @reads
    async def get(self, connection: Connection, session_id: str) -> Session:
        return await use_session(connection, session_id)

    @reads_snapshot
    async def summarize(
        self, connection: Connection, session_id: str, caller: Caller, guard: SessionGuard
    ) -> SessionSummary:
        session = await use_session(connection, session_id, guard)
        summary, *_ = await summarize(connection, [session], caller)
        return summary

    @reads_snapshot
    async def list_participants(
        self,
        connection: Connection,
        session_id: str,
        caller: Caller,
        guard: SessionGuard,
        *,
        limit: int,
    ) -> list[str]:
        session = await use_session(connection, session_id, guard)
        statement = _LIST_WRITERS if caller.is_admin else _LIST_VISIBLE_WRITERS
        parameters = {"session_id": session.id, "limit": limit, **audience_keys(caller)}
        writers = await connection.fetch(*statement(**parameters))
        return join_participants(session, (row[0] for row in writers), limit)

    async def delete(self, session_id: str, guard: SessionGuard, audit: AuditEntry) -> None:
        await self._mark_deleted(session_id, guard, audit)
        self.engine.batcher.forget(session_id)
        # The session is now deleted. Rows that cannot be removed now are removed by purge.
        with contextlib.suppress(Unavailable):
            await remove_session(self.engine.pool, session_id)

    @reads
    async def examine_idle(
        self,
        connection: Connection,
        idle_since: datetime,
        *,
        limit: int,
        after: tuple[datetime, str] | None = None,
    ) -> ExaminedSessions:
        rows = await connection.fetch(
            *_EXAMINE(
                idle_since=encode_time(idle_since),
                **place_after(after),
                limit=limit,
            )
        )
        return examined(rows, limit)

    async def delete_idle(self, session_id: str, idle_since: datetime, audit: AuditEntry) -> bool:
        if not await self._mark_idle(session_id, idle_since, audit):
            return False
        self.engine.batcher.forget(session_id)
        with contextlib.suppress(Unavailable):  # as in delete
            await remove_session(self.engine.pool, session_id)
        return True

    @writes
    async def _mark_idle(
        self, connection: Connection, session_id: str, idle_since: datetime, audit: AuditEntry
    ) -> bool:
        # A separate statement: after waiting for the row it would not see what was added meanwhile.
        await connection.execute(*_LOCK(id=session_id))
        bounds = {"id": session_id, "idle_since": encode_time(idle_since)}
        if await connection.execute(*_MARK_IDLE(**bounds)) == "UPDATE 0":
            return False
        await add_audit(connection, audit)
        return True

    @reads_snapshot
    async def measure(
        self, connection: Connection, session_id: str, guard: SessionGuard, *, now: datetime
    ) -> SessionContents:
        session = await use_session(connection, session_id, guard)
        row = await connection.fetchrow(*_MEASURE(id=session_id, now=encode_time(now)))
        assert row is not None
        return SessionContents(session.last_seq - session.removed_up_to, *row)

    @reads
    async def measure_usage(self, connection: Connection, session_id: str) -> Usage:
        row = await connection.fetchrow(*_MEASURE_USAGE(session_id=session_id))
        assert row is not None
        return Usage(*row)

    @reads
    async def get_cursor(self, connection: Connection, session_id: str, agent_id: str) -> int:
        await use_session(connection, session_id)
        return await find_cursor(connection, session_id, agent_id)


async def use_session(
    connection: Connection,
    session_id: str,
    guard: SessionGuard | None = None,
    *,
    lock: Lock | None = None,
) -> Session:
    """Return the session as it is in this transaction. Raises SessionNotFound and what the guard
    raises. With `lock`, it stays so to the end of the transaction."""
    if lock == "NO KEY UPDATE":
        # A separate statement: one that waits for a row lock then reads the other tables, here the
        # end of the log, as they were before the wait.
        await connection.execute(*_LOCK_LOG(id=session_id))
    find = _FIND if lock is None else _FIND_LOCKED[lock]
    row = await connection.fetchrow(*find(id=session_id))
    if row is None:
        raise SessionNotFound(session_id)
    session = to_session(row)
    if guard is not None:
        guard(session)
    return session


async def use_optional_session(
    connection: Connection, session_id: str | None, guard: SessionGuard | None, lock: Lock | None
) -> Session | None:
    """Do the same as use_session; None stands for server-wide."""
    if session_id is None:
        return None
    return await use_session(connection, session_id, guard, lock=lock)


async def summarize(
    connection: Connection, sessions: Sequence[Session], caller: Caller
) -> list[SessionSummary]:
    """Return the summaries. The cost does not depend on the number of messages."""
    statement = _TALLIES_OF_ALL if caller.is_admin else _TALLIES
    parameters = {
        "session_ids": [session.id for session in sessions],
        "agent_id": caller.agent_id,
        **audience_keys(caller),
    }
    rows = await connection.fetch(*statement(**parameters))
    return [
        SessionSummary(
            session=session,
            message_count=row["count"],
            unread=row["unread"],
            last_activity=decode_optional_time(row["newest_at"]) or session.created_at,
        )
        for session, row in zip(sessions, rows, strict=True)
    ]


async def find_cursor(connection: Connection, session_id: str, agent_id: str) -> int:
    row = await connection.fetchrow(*_FIND_CURSOR(session_id=session_id, agent_id=agent_id))
    return row[0] if row else 0
