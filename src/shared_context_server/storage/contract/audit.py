"""The port for the audit log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shared_context_server.models import (
    AuditEntry,
)


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """The filters of a listing. `before_id`: only entries with a smaller id, which are older."""

    limit: int
    session_id: str | None = None
    agent_id: str | None = None
    event_type: str | None = None
    start_time: datetime | None = None
    before_id: int | None = None


class Audit(Protocol):
    """The audit log. Other methods add their own entries in their own transactions."""

    async def add(self, entry: AuditEntry) -> None:
        """Store one entry."""

    async def list_newest(self, query: AuditQuery) -> list[AuditEntry]:
        """Return the matching entries, newest first."""
