"""Sessions, their participants, and the cursors of agents."""

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


class Sessions(Protocol):
    """Sessions, their participants and the cursors of agents."""

    async def create(self, new: NewSession, audit: AuditEntry) -> Session:
        """Store a new active session and the audit entry. An id that is taken raises Conflict."""

    async def get(self, session_id: str) -> Session:
        """Raise SessionNotFound if there is none."""

    async def list_visible(
        self,
        caller: Caller,
        *,
        status: SessionStatus | None,
        created_by: str | None,
        limit: int,
        before: tuple[datetime, str] | None = None,
    ) -> Page[SessionSummary]:
        """Sessions that policy.can_see_session grants the caller, newest first by (created_at, id),
        strictly older than `before`. Counts as SessionSummary says; `unread` are the visible
        messages behind the caller's cursor. Cost is that of `limit` sessions, whatever their size."""

    async def summarize(
        self, session_id: str, caller: Caller, guard: SessionGuard
    ) -> SessionSummary:
        """One session as list_sessions would show it."""

    async def list_participants(
        self, session_id: str, caller: Caller, guard: SessionGuard, *, limit: int
    ) -> list[str]:
        """Agent ids: the creator, the invited, and whoever has written what the caller may see (by
        the first such message), in that order, each once; the first `limit`."""

    async def close(
        self, session_id: str, closed_at: datetime, guard: SessionGuard, audit: AuditEntry
    ) -> Session:
        """Make it read-only. Closing a closed session changes nothing and returns it."""

    async def delete(self, session_id: str, guard: SessionGuard, audit: AuditEntry) -> None:
        """Remove the session, its messages, cursors, memory, leases and idempotency records; audit
        stays."""

    async def get_cursor(self, session_id: str, agent_id: str) -> int:
        """The agent's stored read position, 0 if none."""

    async def set_cursor(
        self, session_id: str, caller: Caller, seq: int, guard: SessionGuard
    ) -> tuple[int, int]:
        """Store max(stored, seq); return (stored seq, unread visible messages behind it).
        A seq behind the newest message that the caller may see raises
        InvalidArgument(field="seq")."""
