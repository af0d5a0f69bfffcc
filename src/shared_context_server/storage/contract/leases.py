"""Leases: exclusive rights for a limited time, with fencing tokens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from shared_context_server.models import (
    Caller,
    Lease,
)
from shared_context_server.storage.contract.sessions import SessionGuard


@dataclass(frozen=True, slots=True)
class Fence:
    """The lease a write requires, and the token the writer believes to hold it with."""

    lease: str
    fencing_token: int


@dataclass(frozen=True, slots=True)
class LeaseAttempt:
    """`lease`: as it is held now, by the caller if `is_acquired`, else by another. `is_renewal`: the
    caller held it already."""

    lease: Lease
    is_acquired: bool
    is_renewal: bool = False


class Leases(Protocol):
    """Leases of sessions, and of the whole server."""

    async def acquire(
        self,
        session_id: str | None,
        name: str,
        caller: Caller,
        *,
        ttl: timedelta,
        now: datetime,
        guard: SessionGuard | None,
    ) -> LeaseAttempt:
        """Take the lease until now + ttl if it is free: never held, released, or expired, which it
        is from its expires_at on. The fencing token is then 1 or the last one + 1: it grows with
        every holding for as long as the session exists, server-wide for ever. If the caller, that
        is any of the same agent_id, holds it already, that holding is renewed: same token and
        acquired_at, new expiry, be it an earlier one. If another does, nothing changes.
        `guard` is given iff there is a session."""

    async def release(
        self,
        session_id: str | None,
        name: str,
        caller: Caller,
        fencing_token: int,
        *,
        now: datetime,
        guard: SessionGuard | None,
        expires_at: datetime | None = None,
    ) -> bool:
        """End the caller's holding with this token; False, and nothing changes, if the caller does
        not hold it at `now` with this token, or, with `expires_at`, has renewed it since."""

    async def list_held(
        self,
        session_id: str | None,
        *,
        limit: int,
        after_name: str = "",
        now: datetime,
        guard: SessionGuard | None,
    ) -> list[Lease]:
        """The first `limit` leases of one place that are held at `now`, by name in code point order,
        strictly after `after_name`."""
