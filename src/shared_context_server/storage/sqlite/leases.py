"""Leases on SQLite, and the fence check of writes."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta

from shared_context_server.models import Caller, Lease
from shared_context_server.storage.codec import (
    LEASE,
    encode_json,
    encode_optional_time,
    encode_time,
    to_lease,
)
from shared_context_server.storage.contract import MAX_HELD, Fence, LeaseAttempt, SessionGuard
from shared_context_server.storage.rules.audience import session_rights
from shared_context_server.storage.rules.leases import refuse_attempt, refuse_paths, require_fence
from shared_context_server.storage.sqlite.engine.work import Subject, reads, writes
from shared_context_server.storage.sqlite.sessions import CAN_SEE_SESSION, use_optional_session

_HELD = "session_id = :session_id AND holder IS NOT NULL AND expires_at > :now"

_FIND = f"SELECT {LEASE} FROM leases WHERE name = :name AND {_HELD}"
_TAKE = f"""
    INSERT INTO leases (
        session_id, name, holder, instance, fencing_token, acquired_at, expires_at, paths)
    VALUES (
        :session_id, :name, :holder, :instance, 1, :now, :expires_at, coalesce(:paths, '[]'))
    ON CONFLICT (session_id, name) DO UPDATE SET
        holder = excluded.holder, instance = excluded.instance,
        fencing_token = fencing_token + 1,
        acquired_at = excluded.acquired_at, expires_at = excluded.expires_at,
        paths = excluded.paths
    RETURNING {LEASE}"""
_RENEW = f"""
    UPDATE leases SET expires_at = :expires_at, paths = coalesce(:paths, paths)
    WHERE session_id = :session_id AND name = :name
    RETURNING {LEASE}"""
_LIST_ON_PATHS = f"""
    SELECT {LEASE} FROM leases INDEXED BY leases_on_paths
    WHERE {_HELD} AND paths <> '[]' AND name <> :name ORDER BY name"""
_RELEASE = f"""
    UPDATE leases SET holder = NULL
    WHERE name = :name AND {_HELD} AND holder = :holder AND fencing_token = :fencing_token
      AND (:expires_at IS NULL OR expires_at = :expires_at)"""
_END = "UPDATE leases SET holder = NULL WHERE session_id = :session_id AND name = :name"
_LIST = (
    f"SELECT {LEASE} FROM leases INDEXED BY leases_held WHERE {_HELD} AND name > :after_name"
    " ORDER BY name LIMIT :limit"
)
_LIST_VISIBLE = f"""
    SELECT l.session_id, l.name, l.holder, l.fencing_token, l.acquired_at, l.expires_at, l.instance, l.paths
    FROM leases AS l INDEXED BY leases_by_expiry WHERE l.holder IS NOT NULL AND l.expires_at > :now
      AND (l.expires_at, l.session_id, l.name) > (:after_at, :after_session_id, :after_name)
      AND (l.session_id = '' OR EXISTS (
          SELECT 1 FROM sessions AS s
          WHERE s.id = l.session_id AND s.status <> 'deleting' AND {CAN_SEE_SESSION}
      ))
    ORDER BY l.expires_at, l.session_id, l.name LIMIT :limit"""

_LIST_OF_HOLDERS = f"""
    SELECT session_id, name, holder, fencing_token, acquired_at, expires_at, instance, paths FROM (
        SELECT l.*, row_number() OVER (PARTITION BY l.holder ORDER BY l.name, l.session_id) AS number
        FROM leases AS l WHERE l.holder IN (SELECT value FROM json_each(:agent_ids)) AND l.expires_at > :now AND (
            l.session_id = '' OR EXISTS (
                SELECT 1 FROM sessions AS s
                WHERE s.id = l.session_id AND s.status <> 'deleting' AND {CAN_SEE_SESSION}
            )
        )
    ) AS held WHERE number <= :limit ORDER BY holder, name, session_id"""


class Leases(Subject):
    """Leases with fencing tokens. See contract/leases.py."""

    @writes
    def acquire(
        self,
        connection: sqlite3.Connection,
        session_id: str | None,
        name: str,
        caller: Caller,
        *,
        ttl: timedelta,
        now: datetime,
        guard: SessionGuard | None,
        paths: tuple[str, ...] | None = None,
    ) -> LeaseAttempt:
        use_optional_session(connection, session_id, guard)
        current = _find_held(connection, session_id, name, now)
        if (refused := refuse_attempt(current, caller)) is not None:
            return refused
        parameters = {
            "session_id": session_id or "",
            "name": name,
            "holder": caller.agent_id,
            "instance": caller.instance,
            "now": encode_time(now),
            "expires_at": encode_time(now + ttl),
            "paths": None if paths is None else encode_json(paths),
        }
        if paths:
            rows = connection.execute(_LIST_ON_PATHS, parameters)
            others = [to_lease(session_id, row) for row in rows]
            if (refused := refuse_paths(paths, others, caller)) is not None:
                return refused
        row = connection.execute(_TAKE if current is None else _RENEW, parameters).fetchone()
        return LeaseAttempt(
            to_lease(session_id, row), is_acquired=True, is_renewal=current is not None
        )

    @writes
    def release(
        self,
        connection: sqlite3.Connection,
        session_id: str | None,
        name: str,
        caller: Caller,
        fencing_token: int,
        *,
        now: datetime,
        guard: SessionGuard | None,
        expires_at: datetime | None = None,
    ) -> bool:
        use_optional_session(connection, session_id, guard)
        released = connection.execute(
            _RELEASE,
            {
                "session_id": session_id or "",
                "name": name,
                "holder": caller.agent_id,
                "fencing_token": fencing_token,
                "now": encode_time(now),
                "expires_at": encode_optional_time(expires_at),
            },
        )
        return released.rowcount == 1

    @reads
    def list_held(
        self,
        connection: sqlite3.Connection,
        session_id: str | None,
        *,
        limit: int,
        after_name: str = "",
        now: datetime,
        guard: SessionGuard | None,
    ) -> list[Lease]:
        use_optional_session(connection, session_id, guard)
        rows = connection.execute(
            _LIST,
            {
                "session_id": session_id or "",
                "now": encode_time(now),
                "after_name": after_name,
                "limit": limit,
            },
        )
        return [to_lease(session_id, row) for row in rows]

    @reads
    def list_visible(
        self,
        connection: sqlite3.Connection,
        caller: Caller,
        *,
        limit: int,
        after: tuple[datetime, str, str] | None = None,
        now: datetime,
    ) -> list[Lease]:
        parameters = {
            **session_rights(caller),
            "now": encode_time(now),
            "after_at": encode_time(after[0]) if after else 0,
            "after_session_id": after[1] if after else "",
            "after_name": after[2] if after else "",
            "limit": limit,
        }
        rows = connection.execute(_LIST_VISIBLE, parameters)
        return [to_lease(row[0] or None, row[1:]) for row in rows]

    @reads
    def list_of_holders(
        self,
        connection: sqlite3.Connection,
        agent_ids: Sequence[str],
        caller: Caller,
        *,
        now: datetime,
    ) -> list[Lease]:
        rows = connection.execute(
            _LIST_OF_HOLDERS,
            {
                "agent_ids": json.dumps(list(agent_ids)),
                "now": encode_time(now),
                "limit": MAX_HELD,
                **session_rights(caller),
            },
        )
        return [to_lease(row[0] or None, row[1:]) for row in rows]


def take_lease(
    connection: sqlite3.Connection,
    session_id: str,
    name: str,
    caller: Caller,
    *,
    now: datetime,
    expires_at: datetime,
) -> int:
    """Give the lease to the caller, whoever had it. Return the fencing token."""
    parameters = {
        "session_id": session_id,
        "name": name,
        "holder": caller.agent_id,
        "instance": caller.instance,
        "now": encode_time(now),
        "expires_at": encode_time(expires_at),
        "paths": None,
    }
    row = connection.execute(_TAKE, parameters).fetchone()
    return to_lease(session_id, row).fencing_token


def renew_lease(
    connection: sqlite3.Connection, session_id: str, name: str, expires_at: datetime
) -> None:
    parameters = {"session_id": session_id, "name": name, "expires_at": encode_time(expires_at)}
    connection.execute(_RENEW, parameters | {"paths": None}).fetchone()


def end_lease(connection: sqlite3.Connection, session_id: str, name: str) -> None:
    connection.execute(_END, {"session_id": session_id, "name": name})


def check_fence(
    connection: sqlite3.Connection,
    session_id: str | None,
    fence: Fence,
    caller: Caller,
    now: datetime,
) -> None:
    """Raise LeaseLost unless the caller holds this lease with exactly this token."""
    held = _find_held(connection, session_id, fence.lease, now)
    require_fence(held, fence, caller)


def _find_held(
    connection: sqlite3.Connection, session_id: str | None, name: str, now: datetime
) -> Lease | None:
    row = connection.execute(
        _FIND, {"session_id": session_id or "", "name": name, "now": encode_time(now)}
    ).fetchone()
    return None if row is None else to_lease(session_id, row)
