"""The port for the message logs: append messages, and read those that a caller may see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from shared_context_server.models import (
    Ack,
    Caller,
    JsonObject,
    Message,
    Visibility,
)
from shared_context_server.storage.contract.leases import Fence
from shared_context_server.storage.contract.sessions import SessionGuard


class NewMessage(NamedTuple):
    """A message to be appended. `fingerprint` identifies the content of an idempotent call."""

    session_id: str
    sender: Caller
    content: str
    visibility: Visibility
    recipients: tuple[str, ...]
    metadata: JsonObject
    parent_message_id: int | None
    created_at: datetime
    idempotency_key: str | None = None
    fingerprint: str = ""
    fence: Fence | None = None
    ack: Ack = Ack.NONE


class AddedMessage(NamedTuple):
    """The result of `append`. `duplicate`: the idempotency key was known, so this is the first
    call's answer."""

    id: int
    seq: int
    timestamp: datetime
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class MessageQuery:
    """Filters of a page; all must hold, None does not filter. after_seq and before_seq are
    exclusive, start_time and end_time inclusive. A page also ends where page_budget(limit) does."""

    limit: int
    offset: int = 0
    after_seq: int | None = None
    before_seq: int | None = None
    sender: str | None = None
    visibility: Visibility | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    parent_message_id: int | None = None
    is_counted: bool = True


@dataclass(frozen=True, slots=True)
class MessagePage:
    """Messages in seq order. `total_count`: all that match the filters other than after_seq,
    before_seq, offset and limit; 0 unless the query is_counted. `has_more`: with after_seq newer ones match, without it older ones.
    `first_seq` and `last_seq`: of the session in this snapshot, visible or not; see Session."""

    messages: Sequence[Message]
    total_count: int
    has_more: bool
    last_seq: int
    first_seq: int = 1


@dataclass(frozen=True, slots=True)
class SenderCount:
    sender: str
    count: int


class Acknowledgement(NamedTuple):
    """Who has acknowledged a message, and when."""

    agent_id: str
    acknowledged_at: datetime


@dataclass(frozen=True, slots=True)
class NewMessages:
    """Messages of all sessions by id, and the cursor for the next call."""

    messages: list[Message]
    next_after_id: int
    has_more: bool


class Messages(Protocol):
    """The message logs of all sessions."""

    async def append(self, new: NewMessage, guard: SessionGuard) -> AddedMessage:
        """Append to the log. `seq` is the session's last seq + 1, also when that message was removed:
        gapless from the session's first_seq, never used twice, and in commit order, so that a reader
        by cursor never misses one that commits later with a smaller seq.

        Order of checks: idempotency record first (same session, sender and key: the first answer
        again, duplicate=True, even if the session has been closed since; another fingerprint:
        Conflict with field idempotency_key; the caller must still be able to see the session, which
        the guard's SessionNotFound or PermissionDenied tells, only SessionClosed is passed over),
        then the guard, then the fence: at `created_at` the sender must hold that lease of this
        session with this token, else LeaseLost; then the parent: it must be a message of this
        session that policy.can_reply_to grants the sender, else
        MessageNotFound(field="parent_message_id").

        If `new.ack` is GIVEN and the sender has acknowledged the parent before, that acknowledgement
        is returned, with duplicate=True, also in a closed session; nothing is checked but that the
        session exists. Of several calls at the same time one acknowledges.
        """

    async def list_visible(
        self, session_id: str, caller: Caller, query: MessageQuery, guard: SessionGuard
    ) -> MessagePage:
        """Return the messages that the caller may see, from one snapshot. With after_seq: the
        oldest `limit` after it, skipping `offset`; they begin at first_seq if that is later. Without: the newest `limit` (before before_seq
        if given), skipping the newest `offset`. Without filters the cost does not grow with the
        session."""

    async def get(
        self, session_id: str, message_id: int, caller: Caller, guard: SessionGuard
    ) -> Message:
        """Return the message. Raises MessageNotFound if it is missing or the caller may not see it."""

    async def read_log(
        self,
        session_id: str,
        *,
        after_seq: int,
        before_seq: int | None = None,
        limit: int,
        guard: SessionGuard,
    ) -> list[Message]:
        """Return the log by seq, unfiltered, for callers that apply policy.can_see_message: the
        first messages after after_seq, or with `before_seq` the last ones before it. The end is
        reached when nothing is returned, or the session's last_seq."""

    async def count_by_sender(
        self, session_id: str, caller: Caller, *, after_seq: int, guard: SessionGuard
    ) -> list[SenderCount]:
        """Return the numbers of visible messages after after_seq by sender, largest first, then by
        name."""

    async def list_acknowledgements(
        self, session_id: str, message_id: int, *, limit: int
    ) -> list[Acknowledgement]:
        """Return the first `limit` acknowledgements of the message, oldest first."""

    async def list_by_ids(self, caller: Caller, ids: Sequence[int]) -> list[Message]:
        """Return the messages with these ids, of any session, that the caller may see, in the order
        of the ids. It ends where page_budget(len(ids)) does, so a shorter list may have to be asked
        for again from the last one on."""

    async def get_newest_id(self) -> int:
        """Return the largest id that any message has had; 0 if there was none."""

    async def list_new(
        self, caller: Caller, *, after_id: int, limit: int, is_addressed: bool = False
    ) -> NewMessages:
        """Return the messages of all sessions after `after_id` that the caller may see, oldest
        first, at most `limit`.

        Ids are in commit order and never reused: no later message gets an id up to next_after_id. A
        call reads a bounded number of messages, visible or not. So there may be more although it
        returns few or none. With `is_addressed` only messages with recipients or an @ are returned.
        """

    async def list_unread_to(self, agent_id: str, *, limit: int) -> list[Message]:
        """Return messages after the agent's cursors that have it as recipient or its name after an @,
        by others, oldest first: the newest `limit`, of the newest messages of the store only. Not
        filtered: the caller applies the policy."""
