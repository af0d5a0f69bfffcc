"""The port for memory entries: values by key, with versions and expiry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pydantic import JsonValue

from shared_context_server.models import (
    AuditEntry,
    Caller,
    JsonObject,
    MemoryAddress,
    MemoryEntry,
)
from shared_context_server.storage.contract.leases import Fence
from shared_context_server.storage.contract.pages import Page
from shared_context_server.storage.contract.sessions import SessionGuard


@dataclass(frozen=True, slots=True)
class MemoryWrite:
    """The new content of an entry, as an update function computed it."""

    value: JsonValue
    metadata: JsonObject
    expires_at: datetime | None


MemoryUpdate = Callable[[MemoryEntry | None], MemoryWrite]
"""From the current entry (None: missing or expired) to the new one; may raise Conflict and the like.
A store may call it more than once for one write."""


@dataclass(frozen=True, slots=True)
class WrittenMemory:
    entry: MemoryEntry
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class MemoryListing:
    """One entry of a listing, without its value."""

    address: MemoryAddress
    version: int
    metadata: JsonObject
    size_bytes: int
    created_at: datetime
    updated_at: datetime
    updated_by: str
    expires_at: datetime | None


class Memory(Protocol):
    """Memory entries of sessions, of agents, and of the whole server."""

    async def write(
        self,
        address: MemoryAddress,
        caller: Caller,
        update: MemoryUpdate,
        *,
        now: datetime,
        guard: SessionGuard | None,
        idempotency_key: str | None = None,
        fingerprint: str = "",
        fence: Fence | None = None,
        audit: AuditEntry | None = None,
    ) -> WrittenMemory:
        """Apply `update` to the entry, atomically against all other writers of it.

        The version is 1 for a new entry (an expired one counts as missing), else the old one + 1.
        `guard` is given iff the address has a session. The idempotency record is looked up as in
        Messages.append, by (address.session_id, caller.agent_id, key). It returns the first call's
        entry as it was then, without its value. The fence is checked as in Messages.append, at
        `now`: a lease of address.session_id, or a server-wide one if that is None. `audit` is stored
        together with the write, and not for a duplicate.
        """

    async def get(
        self, address: MemoryAddress, *, now: datetime, guard: SessionGuard | None
    ) -> MemoryEntry:
        """Return the entry. Raises MemoryNotFound if it is missing or expired at `now`."""

    async def list_entries(
        self,
        *,
        session_id: str | None,
        owner: str | None,
        prefix: str,
        limit: int,
        after_key: str | None,
        now: datetime,
        guard: SessionGuard | None,
    ) -> Page[MemoryListing]:
        """Return the unexpired entries whose key starts with `prefix` (literally,
        case-sensitively), of one session and owner, by key in code point order, strictly after
        `after_key`."""

    async def list_all(
        self, *, after: MemoryAddress | None, limit: int, now: datetime
    ) -> list[MemoryEntry]:
        """Return the unexpired entries of all sessions and owners with their values, in a fixed
        order, strictly after `after`. No policy is applied: it is for the search index, which keeps
        each entry's owner."""

    async def delete(
        self,
        address: MemoryAddress,
        check: Callable[[MemoryEntry], None],
        *,
        now: datetime,
        guard: SessionGuard | None,
        audit: AuditEntry,
    ) -> None:
        """Remove the entry if `check` does not raise. Raises MemoryNotFound if it is missing or
        expired."""
