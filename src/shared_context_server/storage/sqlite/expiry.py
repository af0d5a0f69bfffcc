"""Message retention on SQLite: remove the messages at the beginning of a session that are old."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Any

from shared_context_server.models import Caller
from shared_context_server.storage.codec import encode_time
from shared_context_server.storage.contract import (
    AuditExpiry,
    ExaminedSessions,
    ExpiryStep,
    Removal,
)
from shared_context_server.storage.rules.audience import session_rights
from shared_context_server.storage.rules.expiry import EXPIRING_COLUMNS, ChosenStep, choose_step
from shared_context_server.storage.rules.pages import TIME_RANGE_SEQS
from shared_context_server.storage.rules.sessions import examined, place_after
from shared_context_server.storage.sqlite.audit import add_audit
from shared_context_server.storage.sqlite.engine.work import Subject, reads, writes
from shared_context_server.storage.sqlite.sessions import CAN_SEE_SESSION

_EXAMINE = """
    SELECT s.id, s.created_at, coalesce((
        SELECT created_at FROM messages INDEXED BY messages_by_seq
        WHERE session_id = s.id AND seq = s.first_seq
    ) < :expired_before, FALSE)
    FROM sessions AS s
    WHERE s.created_at < :expired_before AND s.status <> 'deleting'
      AND (s.created_at, s.id) > (:after_at, :after_id)
    ORDER BY s.created_at, s.id LIMIT :limit"""
_FIND = """
    SELECT first_seq, max(expired_up_to, first_seq - 1), coalesce((
        SELECT seq FROM messages WHERE session_id = s.id ORDER BY seq DESC LIMIT 1
    ), first_seq - 1)
    FROM sessions AS s WHERE id = :session_id AND status <> 'deleting'"""
_FIND_RANGE = """
    SELECT up_to_seq FROM time_ranges
    WHERE session_id = :session_id AND up_to_seq >= :first_seq AND latest >= :expired_before
    ORDER BY up_to_seq LIMIT 1"""
_FIND_FIRST_KEPT = """
    SELECT seq FROM messages INDEXED BY messages_by_seq
    WHERE session_id = :session_id AND seq >= :from_seq AND created_at >= :expired_before
    ORDER BY seq LIMIT 1"""
_ANNOUNCE = "UPDATE sessions SET expired_up_to = :up_to_seq WHERE id = :session_id"
_LIST_FIRST = f"""
    SELECT {EXPIRING_COLUMNS},
           length(CAST(content AS BLOB)) + length(CAST(metadata AS BLOB))
           + length(CAST(recipients AS BLOB))
    FROM messages INDEXED BY messages_by_seq
    WHERE session_id = :session_id AND seq >= :first_seq AND seq <= :up_to_seq
    ORDER BY seq"""
_REMOVE = """
    DELETE FROM messages INDEXED BY messages_by_seq
    WHERE session_id = :session_id AND seq <= :up_to_seq"""
# All but the last one of those that are removed; see the schema.
_REMOVE_AUDIENCE = """
    DELETE FROM audience
    WHERE session_id = :session_id AND name = :name AND seq < (
        SELECT max(seq) FROM audience
        WHERE session_id = :session_id AND name = :name AND seq <= :up_to_seq
    )"""
_REMOVE_RANGES = """
    DELETE FROM time_ranges WHERE session_id = :session_id AND up_to_seq <= :up_to_seq"""
_SET_FIRST = """
    UPDATE sessions
    SET first_seq = :up_to_seq + 1, removed_id = :last_id, removed_at = :last_at
    WHERE id = :session_id"""
_GET_REMOVED_ID = "SELECT removed_id FROM sessions WHERE id = :session_id"
_LIST_REMOVALS = f"""
    SELECT s.id, s.first_seq, s.removed_id FROM sessions AS s INDEXED BY sessions_by_removal
    WHERE s.removed_id > 0 AND s.removed_id > :after_id AND s.status <> 'deleting'
      AND {CAN_SEE_SESSION}
    ORDER BY s.removed_id LIMIT :limit"""


class Expiry(Subject):
    """Removes old messages. See contract/expiry.py."""

    @reads
    def examine(
        self,
        connection: sqlite3.Connection,
        expired_before: datetime,
        *,
        limit: int,
        after: tuple[datetime, str] | None = None,
    ) -> ExaminedSessions:
        rows = connection.execute(
            _EXAMINE,
            {
                "expired_before": encode_time(expired_before),
                **place_after(after),
                "limit": limit,
            },
        ).fetchall()
        return examined(rows, limit)

    @writes
    def remove_some(
        self,
        connection: sqlite3.Connection,
        session_id: str,
        expired_before: datetime,
        audit: AuditExpiry | None,
    ) -> ExpiryStep:
        row = connection.execute(_FIND, {"session_id": session_id}).fetchone()
        if row is None:
            return ExpiryStep(0, has_more=False)
        first_seq, expired_up_to, last_seq = row
        bounds = {
            "session_id": session_id,
            "first_seq": first_seq,
            "expired_before": encode_time(expired_before),
        }
        if audit is not None:
            up_to_seq = _find_last_expired(connection, bounds, last_seq)
            if up_to_seq > expired_up_to:
                parameters = {"session_id": session_id, "up_to_seq": up_to_seq}
                connection.execute(_ANNOUNCE, parameters)
                add_audit(connection, audit(expired_up_to + 1, up_to_seq))
                expired_up_to = up_to_seq
        bounds["up_to_seq"] = expired_up_to
        step = choose_step(connection.execute(_LIST_FIRST, bounds), bounds["expired_before"])
        if not step.count:
            return ExpiryStep(0, has_more=False)
        _remove(connection, session_id, step)
        ends = {"up_to_seq": step.up_to_seq, "last_id": step.last_id, "last_at": step.last_at}
        connection.execute(_SET_FIRST, {"session_id": session_id, **ends})
        return ExpiryStep(step.count, has_more=step.up_to_seq < expired_up_to)

    @reads
    def get_removed_id(self, connection: sqlite3.Connection, session_id: str) -> int:
        row = connection.execute(_GET_REMOVED_ID, {"session_id": session_id}).fetchone()
        return row[0] if row else 0

    @reads
    def list_removals(
        self, connection: sqlite3.Connection, caller: Caller, *, after_id: int, limit: int
    ) -> list[Removal]:
        bounds = {**session_rights(caller), "after_id": after_id, "limit": limit}
        return [Removal(*row) for row in connection.execute(_LIST_REMOVALS, bounds)]


def _find_last_expired(
    connection: sqlite3.Connection, bounds: dict[str, Any], last_seq: int
) -> int:
    """Return the seq before the first message that is not expired. Whole rows of time_ranges are
    passed over, so this reads no more than a thousand messages."""
    row = connection.execute(_FIND_RANGE, bounds).fetchone()
    before = row[0] - TIME_RANGE_SEQS if row else last_seq // TIME_RANGE_SEQS * TIME_RANGE_SEQS
    bounds = bounds | {"from_seq": max(bounds["first_seq"], before + 1)}
    kept = connection.execute(_FIND_FIRST_KEPT, bounds).fetchone()
    return int(kept[0]) - 1 if kept else last_seq


def _remove(connection: sqlite3.Connection, session_id: str, step: ChosenStep) -> None:
    """Remove the messages of a step, and what is derived from them."""
    bounds = {"session_id": session_id, "up_to_seq": step.up_to_seq}
    connection.execute(_REMOVE, bounds)
    connection.executemany(_REMOVE_AUDIENCE, [bounds | {"name": name} for name in step.names])
    connection.execute(_REMOVE_RANGES, bounds)
