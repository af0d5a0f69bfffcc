"""Leases, and the fencing of writes by them."""

# ruff: noqa: S608 - statements are composed at import, of constants only

from __future__ import annotations

from datetime import datetime, timedelta

from shared_context_server import policy
from shared_context_server.errors import LeaseLost
from shared_context_server.models import Caller, Lease
from shared_context_server.storage.codec import (
    LEASE,
    encode_optional_time,
    encode_time,
    to_lease,
)
from shared_context_server.storage.contract import Fence, LeaseAttempt, SessionGuard
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.work import Subject, reads, writes
from shared_context_server.storage.postgres.sessions import use_place

_HELD = "session_id = $1 AND holder IS NOT NULL AND expires_at > $2"

# A row that is there is locked, so that it is taken, renewed or relied on by one at a time. Two who
# take one that is not there collide, and the later of them tries again.
_LOCK = "SELECT 1 FROM leases WHERE session_id = $1 AND name = $2 FOR UPDATE"
_RELY = "SELECT 1 FROM leases WHERE session_id = $1 AND name = $2 FOR SHARE"
_FIND = f"SELECT {LEASE} FROM leases WHERE {_HELD} AND name = $3"
_TAKE_FIRST = f"""
    INSERT INTO leases (session_id, name, holder, fencing_token, acquired_at, expires_at)
    VALUES ($1, $2, $3, 1, $4, $5) RETURNING {LEASE}"""
_TAKE_AGAIN = f"""
    UPDATE leases SET
        holder = $3, fencing_token = fencing_token + 1, acquired_at = $4, expires_at = $5
    WHERE session_id = $1 AND name = $2 RETURNING {LEASE}"""
_RENEW = f"""
    UPDATE leases SET expires_at = $3 WHERE session_id = $1 AND name = $2 RETURNING {LEASE}"""
_RELEASE = f"""
    UPDATE leases SET holder = NULL
    WHERE {_HELD} AND name = $3 AND holder = $4 AND fencing_token = $5
      AND ($6::bigint IS NULL OR expires_at = $6)
    RETURNING name"""
_LIST = f"SELECT {LEASE} FROM leases WHERE {_HELD} AND name > $3 ORDER BY name LIMIT $4"


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
    ) -> LeaseAttempt:
        await use_place(connection, session_id, guard, "KEY SHARE")
        place = session_id or ""
        is_known = await connection.fetchrow(_LOCK, place, name) is not None
        current = await _find_held(connection, session_id, name, now)
        if current is not None and current.holder != caller.agent_id:
            return LeaseAttempt(current, is_acquired=False)
        expires_at = encode_time(now + ttl)
        if current is not None:
            row = await connection.fetchrow(_RENEW, place, name, expires_at)
        else:
            take = _TAKE_AGAIN if is_known else _TAKE_FIRST
            row = await connection.fetchrow(
                take, place, name, caller.agent_id, encode_time(now), expires_at
            )
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
        await use_place(connection, session_id, guard, "KEY SHARE")
        released = await connection.fetchrow(
            _RELEASE,
            session_id or "",
            encode_time(now),
            name,
            caller.agent_id,
            fencing_token,
            encode_optional_time(expires_at),
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
        await use_place(connection, session_id, guard, None)
        rows = await connection.fetch(_LIST, session_id or "", encode_time(now), after_name, limit)
        return [to_lease(session_id, row) for row in rows]


async def require_fence(
    connection: Connection,
    session_id: str | None,
    fence: Fence,
    caller: Caller,
    now: datetime,
) -> None:
    """Raise LeaseLost unless the caller holds the lease of this place with exactly this token.
    Nobody takes it from then on to the end of the transaction."""
    await connection.execute(_RELY, session_id or "", fence.lease)
    held = await _find_held(connection, session_id, fence.lease, now)
    if held is None:
        raise LeaseLost(fence.lease, is_told=policy.may_read(caller))
    if (held.holder, held.fencing_token) != (caller.agent_id, fence.fencing_token):
        raise LeaseLost(
            fence.lease,
            holder=held.holder,
            current_token=held.fencing_token,
            is_told=policy.may_read(caller),
        )


async def _find_held(
    connection: Connection, session_id: str | None, name: str, now: datetime
) -> Lease | None:
    row = await connection.fetchrow(_FIND, session_id or "", encode_time(now), name)
    return None if row is None else to_lease(session_id, row)
