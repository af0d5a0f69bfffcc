"""The port for the audit log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

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


class AuditChain(NamedTuple):
    """The ends of the hash chain over the audit log; see rules/audit_chain.py.

    Entries up to `start_id` were written before there was a chain. Those up to `anchor_id` were removed
    by purging, and the next one is chained to `anchor_hash`. `head_id` is the newest. Between them no
    id is missing.
    """

    start_id: int
    anchor_id: int
    anchor_hash: str
    head_id: int
    head_hash: str


class Audit(Protocol):
    """The audit log. Other methods add their own entries in their own transactions.

    Each entry is chained to the one before in the transaction that adds it. Ids and the chain have the
    order of the commits, also with several processes.
    """

    async def add(self, entry: AuditEntry) -> None:
        """Store one entry. Its id and its hash are set here."""

    async def list_newest(self, query: AuditQuery) -> list[AuditEntry]:
        """Return the matching entries, newest first."""

    async def list_with_chain(
        self, query: AuditQuery
    ) -> tuple[list[AuditEntry], AuditChain | None]:
        """Return the same with the ends of the chain at the same moment; None if no entry is chained."""
