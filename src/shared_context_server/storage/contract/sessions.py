"""The port for sessions, their participants, and the read cursors of agents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shared_context_server.models import (
    Access,
    AuditEntry,
    Caller,
    JsonObject,
    Session,
    SessionStatus,
    SessionSummary,
)
from shared_context_server.storage.contract.pages import Page
from shared_context_server.storage.contract.usage import Usage

SessionGuard = Callable[[Session], None]
"""Raises when the session it is given must not be used this way."""


@dataclass(frozen=True, slots=True)
class NewSession:
    id: str
    purpose: str
    metadata: JsonObject
    access: Access
    created_by: str
    created_at: datetime
    invited: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExaminedSessions:
    """The idle ones of a page of sessions. `next_after`: where the next page begins; None at the end."""

    idle: list[str]
    next_after: tuple[datetime, str] | None


@dataclass(frozen=True, slots=True)
class SessionContents:
    """How much a session has: all of it, also what the caller may not see. `cursors`: agents that have
    stored how far they have read."""

    messages: int
    memory_entries: int
    tasks: int
    leases_held: int
    cursors: int


class Sessions(Protocol):
    """Sessions, their participants and the cursors of agents."""

    async def create(self, new: NewSession, audit: AuditEntry) -> Session:
        """Store a new active session and its audit entry. Raises Conflict if the id is taken."""

    async def get(self, session_id: str) -> Session:
        """Return the session. Raises SessionNotFound."""

    async def list_visible(
        self,
        caller: Caller,
        *,
        status: SessionStatus | None,
        created_by: str | None,
        limit: int,
        before: tuple[datetime, str] | None = None,
    ) -> Page[SessionSummary]:
        """Return the sessions that policy.can_see_session grants the caller, newest first by
        (created_at, id), strictly older than `before`. SessionSummary defines the counts; `unread`
        are the visible messages of others after the caller's cursor. The cost is that of `limit` sessions,
        whatever their size."""

    async def summarize(
        self, session_id: str, caller: Caller, guard: SessionGuard
    ) -> SessionSummary:
        """Return one session as list_visible would."""

    async def list_participants(
        self, session_id: str, caller: Caller, guard: SessionGuard, *, limit: int
    ) -> list[str]:
        """Return the first `limit` agent ids, each once: the creator, the invited, and the writers
        of messages that the caller may see, by their first such message."""

    async def close(
        self, session_id: str, closed_at: datetime, guard: SessionGuard, audit: AuditEntry
    ) -> Session:
        """Make the session read-only and return it. Closing a closed session changes nothing."""

    async def delete(self, session_id: str, guard: SessionGuard, audit: AuditEntry) -> None:
        """Remove the session with its messages, cursors, memory, leases, tasks and idempotency
        records. The audit log stays."""

    async def measure(
        self, session_id: str, guard: SessionGuard, *, now: datetime
    ) -> SessionContents:
        """Return what `delete` would remove. Memory that has expired, and leases that have ended, do
        not count."""

    async def measure_usage(self, session_id: str) -> Usage:
        """Return how much is stored in the session; nothing if there is none. The cost is that of the
        number of agents that have written in it."""

    async def examine_idle(
        self, idle_since: datetime, *, limit: int, after: tuple[datetime, str] | None = None
    ) -> ExaminedSessions:
        """Examine up to `limit` sessions created before `idle_since`, oldest first by (created_at,
        id), strictly newer than `after`. A session is idle if since then it was not closed, no
        message was added (removed ones count too), no memory of it was written, and no lease in it was held."""

    async def delete_idle(self, session_id: str, idle_since: datetime, audit: AuditEntry) -> bool:
        """Delete the session as `delete` does, if it is still idle; return whether it was. Of several
        processes that try, one gets True."""

    async def get_cursor(self, session_id: str, agent_id: str) -> int:
        """Return the agent's stored read position, 0 if it has none."""

    async def set_cursor(
        self, session_id: str, caller: Caller, seq: int, guard: SessionGuard
    ) -> tuple[int, int]:
        """Store max(stored, seq); return the stored seq and the number of visible messages after
        it. Raises InvalidArgument(field="seq") for a seq after the newest message the caller may
        see, unless messages up to it were removed."""
