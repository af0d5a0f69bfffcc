"""The port for message retention: remove the messages at the beginning of a session that are old."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shared_context_server.models import AuditEntry, Caller
from shared_context_server.storage.contract.sessions import ExaminedSessions

AuditExpiry = Callable[[int, int], AuditEntry]
"""Makes the audit entry for a range of expired messages, given as its first and its last seq."""


@dataclass(frozen=True, slots=True)
class ExpiryStep:
    """`removed`: how many messages this step has removed. `has_more`: there are further ones to remove."""

    removed: int
    has_more: bool


@dataclass(frozen=True, slots=True)
class Removal:
    """What was removed from a session: the messages before `first_seq`; `last_id`: the largest id of
    them."""

    session_id: str
    first_seq: int
    last_id: int


class Expiry(Protocol):
    """Removes old messages. The messages that are left begin at the session's first_seq, without a gap."""

    async def examine(
        self,
        expired_before: datetime,
        *,
        limit: int,
        after: tuple[datetime, str] | None = None,
    ) -> ExaminedSessions:
        """Examine up to `limit` sessions created before `expired_before`, oldest first by (created_at,
        id), strictly newer than `after`. Return as idle those whose first message is older than
        `expired_before`, open and closed ones."""

    async def remove_some(
        self, session_id: str, expired_before: datetime, audit: AuditExpiry | None
    ) -> ExpiryStep:
        """Remove some of the messages at the beginning of the session that are older than
        `expired_before`, up to the first that is not. One step takes some milliseconds. With the
        messages go their rows in the index of audiences; what the agents of the session have stored
        is counted anew, first_seq grows. Everything else of the session stays: cursors, idempotency
        records, participants.

        With `audit`, which the first step of a run has: all messages that are old now are going to
        be removed, and the entry for those that no earlier run has announced is written with this
        step. So each removed message is in one entry, also when several processes do this at once or
        one is killed. The event MESSAGES_EXPIRED comes with the last step.
        """

    async def get_removed_id(self, session_id: str) -> int:
        """Return the largest id of the messages that were removed from the session, 0 if none was or
        there is no such session. In a session, ids grow with the seqs."""

    async def list_removals(self, caller: Caller, *, after_id: int, limit: int) -> list[Removal]:
        """Return the sessions that the caller may read and from which messages with a larger id than
        `after_id` were removed, up to `limit` of them by last_id. The last_id of the last one is the
        `after_id` of the next page."""
