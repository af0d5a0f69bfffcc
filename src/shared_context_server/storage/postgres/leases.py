"""Leases on PostgreSQL, and the fence check of writes."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

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
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.statements import Statement
from shared_context_server.storage.postgres.engine.work import Subject, reads, writes
from shared_context_server.storage.postgres.sessions import CAN_SEE_SESSION, use_optional_session
from shared_context_server.storage.rules.audience import session_rights
from shared_context_server.storage.rules.leases import refuse_attempt, refuse_paths, require_fence

_HELD = "session_id = :session_id AND holder IS NOT NULL AND expires_at > :now"

# An existing row is locked, so that one transaction at a time takes, renews or relies on it. If two
# insert a missing one, they conflict, and the later one is run again.
_LOCK = Statement("SELECT 1 FROM leases WHERE session_id = :session_id AND name = :name FOR UPDATE")
_RELY = Statement("SELECT 1 FROM leases WHERE session_id = :session_id AND name = :name FOR SHARE")
_FIND = Statement(f"SELECT {LEASE} FROM leases WHERE {_HELD} AND name = :name")
_TAKE_FIRST = Statement(f"""
    INSERT INTO leases (
        session_id, name, holder, instance, fencing_token, acquired_at, expires_at, paths)
    VALUES (
        :session_id, :name, :holder, :instance, 1, :now, :expires_at,
        coalesce(:paths::text, '[]')) RETURNING {LEASE}""")
_TAKE_AGAIN = Statement(f"""
    UPDATE leases SET
        holder = :holder, instance = :instance, fencing_token = fencing_token + 1,
        acquired_at = :now,
        expires_at = :expires_at, paths = coalesce(:paths::text, '[]')
    WHERE session_id = :session_id AND name = :name RETURNING {LEASE}""")
_TAKE_IN_ANY_CASE = Statement(f"""
    INSERT INTO leases AS held
        (session_id, name, holder, instance, fencing_token, acquired_at, expires_at)
    VALUES (:session_id, :name, :holder, :instance, 1, :now, :expires_at)
    ON CONFLICT (session_id, name) DO UPDATE SET
        holder = excluded.holder, instance = excluded.instance,
        fencing_token = held.fencing_token + 1,
        acquired_at = excluded.acquired_at, expires_at = excluded.expires_at
    RETURNING {LEASE}""")
_RENEW = Statement(f"""
    UPDATE leases SET expires_at = :expires_at, paths = coalesce(:paths::text, paths)
    WHERE session_id = :session_id AND name = :name
    RETURNING {LEASE}""")
# Before it lists them, so that of two that take overlapping paths at once the second sees the first.
_LOCK_PATHS = Statement(
    "SELECT pg_advisory_xact_lock(hashtextextended('leases on paths ' || :session_id, 0))"
)
_LIST_ON_PATHS = Statement(f"""
    SELECT {LEASE} FROM leases
    WHERE {_HELD} AND paths <> '[]' AND name <> :name ORDER BY name""")
_RELEASE = Statement(f"""
    UPDATE leases SET holder = NULL
    WHERE {_HELD} AND name = :name AND holder = :holder AND fencing_token = :fencing_token
      AND (:expires_at::bigint IS NULL OR expires_at = :expires_at)
    RETURNING name""")
_END = Statement("UPDATE leases SET holder = NULL WHERE session_id = :session_id AND name = :name")
_LIST = Statement(
    f"SELECT {LEASE} FROM leases WHERE {_HELD} AND name > :after_name ORDER BY name LIMIT :limit"
)
_LIST_VISIBLE = Statement(f"""
    SELECT l.session_id, l.name, l.holder, l.fencing_token, l.acquired_at, l.expires_at, l.instance, l.paths
    FROM leases AS l WHERE l.holder IS NOT NULL AND l.expires_at > :now
      AND (l.expires_at, l.session_id, l.name) > (:after_at, :after_session_id, :after_name)
      AND (l.session_id = '' OR EXISTS (
          SELECT 1 FROM sessions AS s
          WHERE s.id = l.session_id AND s.status <> 'deleting' AND {CAN_SEE_SESSION}
      ))
    ORDER BY l.expires_at, l.session_id, l.name LIMIT :limit""")

_LIST_OF_HOLDERS = Statement(f"""
    SELECT session_id, name, holder, fencing_token, acquired_at, expires_at, instance, paths FROM (
        SELECT l.*, row_number() OVER (PARTITION BY l.holder ORDER BY l.name, l.session_id) AS number
        FROM leases AS l WHERE l.holder = ANY(:agent_ids::text[]) AND l.expires_at > :now AND (
            l.session_id = '' OR EXISTS (
                SELECT 1 FROM sessions AS s
                WHERE s.id = l.session_id AND s.status <> 'deleting' AND {CAN_SEE_SESSION}
            )
        )
    ) AS held WHERE number <= :limit ORDER BY holder, name, session_id""")


class Leases(Subject):
    """Leases with fencing tokens. See contract/leases.py."""

    @writes
    async def acquire(
        self,
        connection: Connection,
        session_id: str | None,
        name: str,
        caller: Caller,
        *,
        ttl: timedelta,
        now: datetime,
        guard: SessionGuard | None,
        paths: tuple[str, ...] | None = None,
    ) -> LeaseAttempt:
        await use_optional_session(connection, session_id, guard, "KEY SHARE")
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
            await connection.execute(*_LOCK_PATHS(**parameters))
        is_known = await connection.fetchrow(*_LOCK(**parameters)) is not None
        current = await _find_held(connection, session_id, name, now)
        if (refused := refuse_attempt(current, caller)) is not None:
            return refused
        if paths:
            rows = await connection.fetch(*_LIST_ON_PATHS(**parameters))
            others = [to_lease(session_id, row) for row in rows]
            if (refused := refuse_paths(paths, others, caller)) is not None:
                return refused
        take = _TAKE_AGAIN if is_known else _TAKE_FIRST
        row = await connection.fetchrow(*(take if current is None else _RENEW)(**parameters))
        assert row is not None
        return LeaseAttempt(
            to_lease(session_id, row), is_acquired=True, is_renewal=current is not None
        )

    @writes
    async def release(
        self,
        connection: Connection,
        session_id: str | None,
        name: str,
        caller: Caller,
        fencing_token: int,
        *,
        now: datetime,
        guard: SessionGuard | None,
        expires_at: datetime | None = None,
    ) -> bool:
        await use_optional_session(connection, session_id, guard, "KEY SHARE")
        released = await connection.fetchrow(
            *_RELEASE(
                session_id=session_id or "",
                now=encode_time(now),
                name=name,
                holder=caller.agent_id,
                fencing_token=fencing_token,
                expires_at=encode_optional_time(expires_at),
            )
        )
        return released is not None

    @reads
    async def list_held(
        self,
        connection: Connection,
        session_id: str | None,
        *,
        limit: int,
        after_name: str = "",
        now: datetime,
        guard: SessionGuard | None,
    ) -> list[Lease]:
        await use_optional_session(connection, session_id, guard, None)
        rows = await connection.fetch(
            *_LIST(
                session_id=session_id or "",
                now=encode_time(now),
                after_name=after_name,
                limit=limit,
            )
        )
        return [to_lease(session_id, row) for row in rows]

    @reads
    async def list_visible(
        self,
        connection: Connection,
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
        rows = await connection.fetch(*_LIST_VISIBLE(**parameters))
        return [to_lease(row[0] or None, row[1:]) for row in rows]

    @reads
    async def list_of_holders(
        self, connection: Connection, agent_ids: Sequence[str], caller: Caller, *, now: datetime
    ) -> list[Lease]:
        rows = await connection.fetch(
            *_LIST_OF_HOLDERS(
                agent_ids=list(agent_ids),
                now=encode_time(now),
                limit=MAX_HELD,
                **session_rights(caller),
            )
        )
        return [to_lease(row[0] or None, row[1:]) for row in rows]


async def take_lease(
    connection: Connection,
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
    }
    row = await connection.fetchrow(*_TAKE_IN_ANY_CASE(**parameters))
    assert row is not None
    return to_lease(session_id, row).fencing_token


async def renew_lease(
    connection: Connection, session_id: str, name: str, expires_at: datetime
) -> None:
    parameters = {"session_id": session_id, "name": name, "expires_at": encode_time(expires_at)}
    await connection.execute(*_RENEW(**parameters, paths=None))


async def end_lease(connection: Connection, session_id: str, name: str) -> None:
    await connection.execute(*_END(session_id=session_id, name=name))


async def check_fence(
    connection: Connection,
    session_id: str | None,
    fence: Fence,
    caller: Caller,
    now: datetime,
) -> None:
    """Raise LeaseLost unless the caller holds this lease with exactly this token. Nobody can take
    the lease until the end of the transaction."""
    await connection.execute(*_RELY(session_id=session_id or "", name=fence.lease))
    held = await _find_held(connection, session_id, fence.lease, now)
    require_fence(held, fence, caller)


async def _find_held(
    connection: Connection, session_id: str | None, name: str, now: datetime
) -> Lease | None:
    row = await connection.fetchrow(
        *_FIND(session_id=session_id or "", now=encode_time(now), name=name)
    )
    return None if row is None else to_lease(session_id, row)
