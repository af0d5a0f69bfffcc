"""The port for leases: exclusive rights for a limited time, with fencing tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from shared_context_server.models import (
    Caller,
    Lease,
)
from shared_context_server.storage.contract.sessions import SessionGuard

MAX_HELD = 10  # leases of one holder in a list of agents


@dataclass(frozen=True, slots=True)
class Fence:
    """The lease that a write requires, and the token by which the writer believes to hold it."""

    lease: str
    fencing_token: int


@dataclass(frozen=True, slots=True)
class LeaseAttempt:
    """The result of `acquire`. `lease`: the lease as held now: by the caller if `is_acquired`, else
    by another agent, which may be a lease of another name on the same paths. `is_renewal`: the caller held it already."""

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
        paths: tuple[str, ...] | None = None,
    ) -> LeaseAttempt:
        """Take the lease until now + ttl if it is free: never held, released, or expired (from its
        expires_at on).

        The fencing token is then 1, or the last one + 1. It grows with every new holding as long as
        the session exists; server-wide, for ever. If the caller's agent_id and instance hold the
        lease already, it is renewed: same token and acquired_at, new expiry, which may be earlier.
        If another agent holds it, or another instance of the same agent, nothing changes. `guard` is given iff there is a session.

        `paths`: normalized patterns that the lease protects; None leaves those of a renewed lease, and
        gives a new one none. If one of them overlaps with the paths of a lease that somebody else
        holds in the same place, nothing changes, and the result is that lease. Raises Conflict if the
        path leases held there would be more than MAX_PATH_LEASES, or longer than MAX_PATH_CHARS.
        """

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
        """End a holding of the caller's agent_id, of whichever instance. Return False and change nothing if the caller does not hold the
        lease at `now` with this token, or has renewed it since `expires_at`, if that is given."""

    async def list_held(
        self,
        session_id: str | None,
        *,
        limit: int,
        after_name: str = "",
        now: datetime,
        guard: SessionGuard | None,
    ) -> list[Lease]:
        """Return the first `limit` leases held at `now`, of a session or server-wide, by name in
        code point order, strictly after `after_name`."""

    async def list_visible(
        self,
        caller: Caller,
        *,
        limit: int,
        after: tuple[datetime, str, str] | None = None,
        now: datetime,
    ) -> list[Lease]:
        """Return the first `limit` leases held at `now`, of the whole server and of sessions that the
        caller may see, by (expires_at, session_id, name), strictly after `after`. Server-wide leases
        have the session_id "" there. The cost grows with the leases that are held."""

    async def list_of_holders(
        self, agent_ids: Sequence[str], caller: Caller, *, now: datetime
    ) -> list[Lease]:
        """Return the leases that these agents hold at `now`, of the whole server and of sessions that
        the caller may see, by holder and name: of each agent at most MAX_HELD."""
