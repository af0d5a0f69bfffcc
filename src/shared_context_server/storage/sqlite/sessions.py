"""Sessions, participants and read cursors on SQLite."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

import contextlib
import sqlite3
from datetime import datetime

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
    decode_time,
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
from shared_context_server.storage.rules.audience import audience_keys, session_rights
from shared_context_server.storage.rules.pages import take_page
from shared_context_server.storage.rules.sessions import (
    examined,
    join_participants,
    place_after,
    require_seq_up_to,
)
from shared_context_server.storage.sqlite.audience import tally_visible
from shared_context_server.storage.sqlite.audit import add_audit
from shared_context_server.storage.sqlite.engine.work import Subject, reads, writes
from shared_context_server.storage.sqlite.removal import remove_session

_ADD = """
    INSERT INTO sessions (id, purpose, metadata, access, status, created_by, created_at, invited)
    VALUES (:id, :purpose, :metadata, :access, 'active', :created_by, :created_at, :invited)
    ON CONFLICT (id) DO NOTHING"""
_FIND = f"SELECT {SESSION} FROM sessions AS s WHERE s.id = :id AND s.status <> 'deleting'"
_CLOSE = "UPDATE sessions SET status = 'closed', closed_at = :closed_at WHERE id = :id"
_MARK_DELETED = "UPDATE sessions SET status = 'deleting' WHERE id = :id"

CAN_SEE_SESSION = """(:is_admin OR (:may_use AND (
    s.access = 'open'
    OR s.created_by = :agent_id
    OR EXISTS (SELECT 1 FROM json_each(s.invited) WHERE value = :agent_id)
)))"""
"""`policy.can_see_session` for session `s`. Wants session_rights."""

_LIST_FROM = f"SELECT {SESSION} FROM sessions AS s WHERE"
_NEWEST_VISIBLE = f"""
      AND (s.created_at, s.id) < (:before_at, :before_id) AND {CAN_SEE_SESSION}
    ORDER BY s.created_at DESC, s.id DESC LIMIT :limit"""
# By (status given?, creator given?), so that each walks the index that fits.
_LISTINGS = {
    (False, False): f"{_LIST_FROM} s.status <> 'deleting' {_NEWEST_VISIBLE}",
    (True, False): f"{_LIST_FROM} s.status = :status {_NEWEST_VISIBLE}",
    (False, True): (
        f"{_LIST_FROM} s.created_by = :created_by AND s.status <> 'deleting' {_NEWEST_VISIBLE}"
    ),
    (True, True): (
        f"{_LIST_FROM} s.created_by = :created_by AND +s.status = :status {_NEWEST_VISIBLE}"
    ),
}

_NEWEST_AT = """
    SELECT coalesce(
        (SELECT created_at FROM messages WHERE session_id = :session_id ORDER BY seq DESC LIMIT 1),
        (SELECT removed_at FROM sessions WHERE id = :session_id))"""
_LIST_WRITERS = """
    SELECT agent_id FROM participants WHERE session_id = :session_id ORDER BY first_seq
    LIMIT :limit"""
_LIST_VISIBLE_WRITERS = """
    SELECT agent_id FROM writers
    WHERE session_id = :session_id AND name IN (:name_public, :name_agent_only, :name_private)
    GROUP BY agent_id ORDER BY min(first_seq) LIMIT :limit"""

_COUNT_SENT_AFTER = """
    SELECT count(*) FROM messages INDEXED BY messages_by_sender
    WHERE session_id = :session_id AND sender = :sender AND seq > :after_seq"""
# Who reads is not active. A lease counts until it ends.
_IS_IDLE = """
    s.created_at < :idle_since
    AND coalesce(s.closed_at, 0) < :idle_since
    AND coalesce((
        SELECT created_at FROM messages WHERE session_id = s.id ORDER BY seq DESC LIMIT 1
    ), s.removed_at, 0) < :idle_since
    AND NOT EXISTS (SELECT 1 FROM memory WHERE session_id = s.id AND updated_at >= :idle_since)
    AND NOT EXISTS (SELECT 1 FROM leases WHERE session_id = s.id AND expires_at >= :idle_since)"""
_EXAMINE = f"""
    SELECT s.id, s.created_at, {_IS_IDLE} FROM sessions AS s
    WHERE s.created_at < :idle_since AND s.status <> 'deleting'
      AND (s.created_at, s.id) > (:after_at, :after_id)
    ORDER BY s.created_at, s.id LIMIT :limit"""
_MARK_IDLE = f"""
    UPDATE sessions AS s SET status = 'deleting'
    WHERE s.id = :id AND s.status <> 'deleting' AND {_IS_IDLE}"""

_MEASURE = """
    SELECT
        (SELECT count(*) FROM memory WHERE session_id = :id
         AND (expires_at IS NULL OR expires_at > :now)),
        (SELECT coalesce(sum(count), 0) FROM task_counts WHERE session_id = :id),
        (SELECT count(*) FROM leases WHERE session_id = :id AND holder IS NOT NULL
         AND expires_at > :now),
        (SELECT count(*) FROM cursors WHERE session_id = :id)"""

_MEASURE_USAGE = """
    SELECT coalesce(sum(sessions), 0), coalesce(sum(messages), 0),
           coalesce(sum(memory_entries), 0), coalesce(sum(bytes), 0)
    FROM (
        SELECT sessions, 0 AS messages, memory_entries, bytes
        FROM usage WHERE session_id = :session_id
        UNION ALL
        SELECT 0, messages, 0, bytes
        FROM participants WHERE session_id = :session_id
    ) AS stored"""

_FIND_CURSOR = "SELECT seq FROM cursors WHERE session_id = :session_id AND agent_id = :agent_id"
_SET_CURSOR = """
    INSERT INTO cursors (session_id, agent_id, seq) VALUES (:session_id, :agent_id, :seq)
    ON CONFLICT (session_id, agent_id) DO UPDATE SET seq = max(seq, excluded.seq)
    RETURNING seq"""


class Sessions(Subject):
    """Sessions, their participants and cursors. See contract/sessions.py."""

    @writes
    def create(self, connection: sqlite3.Connection, new: NewSession, audit: AuditEntry) -> Session:
        added = connection.execute(
            _ADD,
            {
                "id": new.id,
                "purpose": new.purpose,
                "metadata": encode_json(new.metadata),
                "access": new.access,
                "created_by": new.created_by,
                "created_at": encode_time(new.created_at),
                "invited": encode_json(new.invited),
            },
        )
        if added.rowcount == 0:
            raise Conflict(f"A session {new.id!r} already exists.", field="session_id")
        add_audit(connection, audit)
        return use_session(connection, new.id)

    @reads
    def list_visible(
        self,
        connection: sqlite3.Connection,
        caller: Caller,
        *,
        status: SessionStatus | None,
        created_by: str | None,
        limit: int,
        before: tuple[datetime, str] | None = None,
    ) -> Page[SessionSummary]:
        found = connection.execute(
            _LISTINGS[status is not None, created_by is not None],
            {
                **session_rights(caller),
                "status": status,
                "created_by": created_by,
                "before_at": encode_time(before[0]) if before else MAX_INTEGER,
                "before_id": before[1] if before else "",
                "limit": limit + 1,
            },
        )
        rows, has_more = take_page(found, limit, SESSION_TEXT_COLUMNS)
        return Page([summarize(connection, to_session(row), caller) for row in rows], has_more)

    @writes
    def close(
        self,
        connection: sqlite3.Connection,
        session_id: str,
        closed_at: datetime,
        guard: SessionGuard,
        audit: AuditEntry,
    ) -> Session:
        session = use_session(connection, session_id, guard)
        if session.status is SessionStatus.CLOSED:
            return session
        connection.execute(_CLOSE, {"id": session_id, "closed_at": encode_time(closed_at)})
        add_audit(connection, audit)
        return use_session(connection, session_id)

    @writes
    def _mark_deleted(
        self,
        connection: sqlite3.Connection,
        session_id: str,
        guard: SessionGuard,
        audit: AuditEntry,
    ) -> None:
        """Hide the session from all callers from now on; removal.py removes the rows."""
        use_session(connection, session_id, guard)
        connection.execute(_MARK_DELETED, {"id": session_id})
        add_audit(connection, audit)

    @writes
    def set_cursor(
        self,
        connection: sqlite3.Connection,
        session_id: str,
        caller: Caller,
        seq: int,
        guard: SessionGuard,
    ) -> tuple[int, int]:
        session = use_session(connection, session_id, guard)
        last_visible = session.last_seq
        if not caller.is_admin:
            last_visible = tally_visible(connection, session_id, audience_keys(caller)).last_seq
        require_seq_up_to(seq, last_visible, session)
        (stored,) = connection.execute(
            _SET_CURSOR,
            {"session_id": session_id, "agent_id": caller.agent_id, "seq": max(seq, 0)},
        ).fetchone()
        return stored, summarize(connection, session, caller).unread

    @reads
    def get(self, connection: sqlite3.Connection, session_id: str) -> Session:
        return use_session(connection, session_id)

    @reads
    def summarize(
        self, connection: sqlite3.Connection, session_id: str, caller: Caller, guard: SessionGuard
    ) -> SessionSummary:
        return summarize(connection, use_session(connection, session_id, guard), caller)

    @reads
    def list_participants(
        self,
        connection: sqlite3.Connection,
        session_id: str,
        caller: Caller,
        guard: SessionGuard,
        *,
        limit: int,
    ) -> list[str]:
        session = use_session(connection, session_id, guard)
        writers = connection.execute(
            _LIST_WRITERS if caller.is_admin else _LIST_VISIBLE_WRITERS,
            {"session_id": session.id, "limit": limit, **audience_keys(caller)},
        )
        return join_participants(session, (row[0] for row in writers), limit)

    async def delete(self, session_id: str, guard: SessionGuard, audit: AuditEntry) -> None:
        await self._mark_deleted(session_id, guard, audit)
        # The session is now deleted. Rows that cannot be removed now are removed by purge.
        with contextlib.suppress(Unavailable):
            await remove_session(self.engine, session_id)

    @reads
    def examine_idle(
        self,
        connection: sqlite3.Connection,
        idle_since: datetime,
        *,
        limit: int,
        after: tuple[datetime, str] | None = None,
    ) -> ExaminedSessions:
        rows = connection.execute(
            _EXAMINE,
            {
                "idle_since": encode_time(idle_since),
                **place_after(after),
                "limit": limit,
            },
        ).fetchall()
        return examined(rows, limit)

    async def delete_idle(self, session_id: str, idle_since: datetime, audit: AuditEntry) -> bool:
        if not await self._mark_idle(session_id, idle_since, audit):
            return False
        with contextlib.suppress(Unavailable):  # as in delete
            await remove_session(self.engine, session_id)
        return True

    @writes
    def _mark_idle(
        self,
        connection: sqlite3.Connection,
        session_id: str,
        idle_since: datetime,
        audit: AuditEntry,
    ) -> bool:
        bounds = {"id": session_id, "idle_since": encode_time(idle_since)}
        if connection.execute(_MARK_IDLE, bounds).rowcount == 0:
            return False
        add_audit(connection, audit)
        return True

    @reads
    def measure(
        self,
        connection: sqlite3.Connection,
        session_id: str,
        guard: SessionGuard,
        *,
        now: datetime,
    ) -> SessionContents:
        session = use_session(connection, session_id, guard)
        row = connection.execute(_MEASURE, {"id": session_id, "now": encode_time(now)}).fetchone()
        return SessionContents(session.last_seq - session.removed_up_to, *row)

    @reads
    def measure_usage(self, connection: sqlite3.Connection, session_id: str) -> Usage:
        return Usage(*connection.execute(_MEASURE_USAGE, {"session_id": session_id}).fetchone())

    @reads
    def get_cursor(self, connection: sqlite3.Connection, session_id: str, agent_id: str) -> int:
        use_session(connection, session_id)
        return find_cursor(connection, session_id, agent_id)


def use_session(
    connection: sqlite3.Connection, session_id: str, guard: SessionGuard | None = None
) -> Session:
    """Return the session as it is in this transaction. Raises SessionNotFound and what the guard
    raises."""
    row = connection.execute(_FIND, {"id": session_id}).fetchone()
    if row is None:
        raise SessionNotFound(session_id)
    session = to_session(row)
    if guard is not None:
        guard(session)
    return session


def use_optional_session(
    connection: sqlite3.Connection, session_id: str | None, guard: SessionGuard | None
) -> Session | None:
    """Do the same as use_session; None stands for server-wide."""
    return None if session_id is None else use_session(connection, session_id, guard)


def summarize(connection: sqlite3.Connection, session: Session, caller: Caller) -> SessionSummary:
    """Return the summary. Its cost does not depend on the number of messages."""
    removed_up_to = session.removed_up_to
    cursor = max(find_cursor(connection, session.id, caller.agent_id), removed_up_to)
    if caller.is_admin:
        count = session.last_seq
        (newest,) = connection.execute(_NEWEST_AT, {"session_id": session.id}).fetchone()
        newest_at = None if newest is None else decode_time(newest)
    else:
        tally = tally_visible(connection, session.id, audience_keys(caller))
        count, newest_at = tally.count, tally.newest_at
    return SessionSummary(
        session=session,
        message_count=count - _count_up_to(connection, session, caller, removed_up_to),
        unread=count
        - _count_up_to(connection, session, caller, cursor)
        - _count_own_after(connection, session, caller, cursor),
        last_activity=newest_at or session.created_at,
    )


def _count_up_to(connection: sqlite3.Connection, session: Session, caller: Caller, seq: int) -> int:
    """Return how many messages the caller sees, or saw, up to and including `seq`, a seq of the
    session that is not before its removed_up_to."""
    if seq == 0 or caller.is_admin:
        return seq
    keys = audience_keys(caller)
    return tally_visible(connection, session.id, keys, up_to_seq=seq).count


def _count_own_after(
    connection: sqlite3.Connection, session: Session, caller: Caller, seq: int
) -> int:
    """Return how many of the caller's own messages the caller sees after `seq`."""
    if caller.is_admin:
        parameters = {"session_id": session.id, "sender": caller.agent_id, "after_seq": seq}
        (count,) = connection.execute(_COUNT_SENT_AFTER, parameters).fetchone()
        return int(count)
    keys = audience_keys(caller, sender=caller.agent_id)
    count = tally_visible(connection, session.id, keys).count
    if count and seq:
        count -= tally_visible(connection, session.id, keys, up_to_seq=seq).count
    return int(count)


def find_cursor(connection: sqlite3.Connection, session_id: str, agent_id: str) -> int:
    row = connection.execute(
        _FIND_CURSOR, {"session_id": session_id, "agent_id": agent_id}
    ).fetchone()
    return row[0] if row else 0
