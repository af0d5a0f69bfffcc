"""What the services need of a store. These docstrings are the contract every store is tested on.

Common promises
- A method that writes returns after its transaction is committed: what it reports survives a
  killed process. If it raises, nothing of it was written, with one exception: an Unavailable whose
  cause is a connection that was lost while it committed. Then, and if its caller is cancelled, the
  write may or may not have happened, wholly.
- A guard runs inside the transaction (or read snapshot) on the session as it is there, and may
  raise any SharedContextError, which is passed on unchanged. It must be quick and must not block.
  It may be asked before, too, on the session as the store remembers it; only the last time counts.
- A session that does not exist raises SessionNotFound, before any guard.
- Reads see every write that was acknowledged before they began, by any process.
- A store that cannot answer raises Unavailable.
- What lists messages, sessions or memory entries stops at `limit` of them, or before the first that
  would not fit into pages.page_budget(limit); there is always at least one if there is any. What
  does not fit is not loaded either.
- All methods are safe to call from any number of tasks of the loop that opened the store.
- JSON values come back equal to what was stored; object keys keep their order. Other text has no
  U+0000: callers are refused before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar

from pydantic import JsonValue

from shared_context_server.models import (
    Access,
    Agent,
    ApiKey,
    AuditEntry,
    Caller,
    Credential,
    Event,
    JsonObject,
    Lease,
    MemoryAddress,
    MemoryEntry,
    Message,
    Session,
    SessionStatus,
    SessionSummary,
    Visibility,
)

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
class Fence:
    """The lease a write requires, and the token the writer believes to hold it with."""

    lease: str
    fencing_token: int


@dataclass(frozen=True, slots=True)
class NewMessage:
    """`sender` is the writing caller; `fingerprint` identifies the content of an idempotent call."""

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


@dataclass(frozen=True, slots=True)
class AddedMessage:
    """`duplicate`: the idempotency key was known, and this is the first call's answer."""

    id: int
    seq: int
    timestamp: datetime
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class MessageQuery:
    """Filters, all of which must hold; None does not filter. Bounds: after_seq and before_seq
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
    `last_seq`: the newest seq of the session in this snapshot, visible or not."""

    messages: list[Message]
    total_count: int
    has_more: bool
    last_seq: int


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Items of a listing in its order. `has_more`: there are further ones behind the last of them."""

    items: list[T]
    has_more: bool


@dataclass(frozen=True, slots=True)
class SenderCount:
    sender: str
    count: int


@dataclass(frozen=True, slots=True)
class MemoryWrite:
    """What an update function decided to store."""

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
    """One entry of a listing: all but the value."""

    address: MemoryAddress
    version: int
    metadata: JsonObject
    size_bytes: int
    created_at: datetime
    updated_at: datetime
    updated_by: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class LeaseAttempt:
    """`lease`: as it is held now, by the caller if `is_acquired`, else by another. `is_renewal`: the
    caller held it already."""

    lease: Lease
    is_acquired: bool
    is_renewal: bool = False


@dataclass(frozen=True, slots=True)
class AuthState:
    """What is needed to accept or refuse credentials: active keys by id, and the family ids of
    revoked credentials that have not expired yet. `generation` grows with every change."""

    generation: int
    keys: dict[str, ApiKey]
    revoked_families: frozenset[str]


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """`after_id`: only entries with a smaller id, that is older ones (paging from newest to oldest)."""

    limit: int
    session_id: str | None = None
    agent_id: str | None = None
    event_type: str | None = None
    start_time: datetime | None = None
    after_id: int | None = None


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Gauges for /metrics, NaN for what is not known. `extra` holds a backend's own, by metric
    name."""

    active_sessions: float
    active_agents: float
    extra: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewMessages:
    """A piece of what all sessions have in common, by id, and where to read on."""

    messages: list[Message]
    next_after_id: int
    has_more: bool


@dataclass(frozen=True, slots=True)
class PresenceChange:
    """Ids of agents that have come, and of those that have gone quiet."""

    joined: list[str]
    left: list[str]


@dataclass(frozen=True, slots=True)
class Anchor:
    """A message that was in the store: while it is, so is all that was committed before it."""

    message_id: int
    session_id: str
    created_at_us: int


@dataclass(frozen=True, slots=True)
class TailPosition:
    """How far a reader of the tail has read: ids of a message and a change. `anchor` is the newest
    message seen, None if there was none, by which to know the history again."""

    message_id: int
    change_id: int
    anchor: Anchor | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Changes:
    """A piece of the tail: `events` in an order that keeps each session's messages by seq, and where
    to read on. Without `is_complete` some of what was behind the old position is no longer kept.
    `is_set_back`: the store has lost what the position was taken in, since an earlier state of it was
    restored or a standby that lacked the last commits took over; `position` is the end then."""

    events: list[Event]
    position: TailPosition
    is_complete: bool = True
    is_set_back: bool = False


class Bell(Protocol):
    """How processes that serve one store wake each other. What happened is not said: who hears a
    ring reads the tail. A ring may get lost, so whoever listens looks now and then in any case."""

    def start_listening(self) -> bool:
        """Listen from now on; False if rings cannot be heard, and looking is all there is."""

    def stop_listening(self) -> None:
        """Stop listening."""

    def ring(self) -> None:
        """Wake the others; never blocks, never raises."""

    def close(self) -> None:
        """Stop listening, and ring no more."""


class Storage(Protocol):
    """A place that keeps sessions, messages, memory, leases, identity and audit."""

    def begin_closing(self) -> None:
        """Say that the server is about to end. Calls are served as before, but those under way and
        those to come raise Unavailable rather than wait for long for a database that is silent."""

    async def aclose(self) -> None:
        """Finish the writes under way, then release everything. Further calls raise Unavailable."""

    async def ping(self) -> None:
        """Return if the store answers reads and takes a write, else raise Unavailable or StorageDamaged."""

    # Sessions

    async def create_session(self, new: NewSession, audit: AuditEntry) -> Session:
        """Store a new active session and the audit entry. An id that is taken raises Conflict."""

    async def get_session(self, session_id: str) -> Session:
        """Raise SessionNotFound if there is none."""

    async def list_sessions(
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

    async def summarize_session(
        self, session_id: str, caller: Caller, guard: SessionGuard
    ) -> SessionSummary:
        """One session as list_sessions would show it."""

    async def list_participants(
        self, session_id: str, caller: Caller, guard: SessionGuard, *, limit: int
    ) -> list[str]:
        """Agent ids: the creator, the invited, and whoever has written what the caller may see (by
        the first such message), in that order, each once; the first `limit`."""

    async def close_session(
        self, session_id: str, closed_at: datetime, guard: SessionGuard, audit: AuditEntry
    ) -> Session:
        """Make it read-only. Closing a closed session changes nothing and returns it."""

    async def delete_session(self, session_id: str, guard: SessionGuard, audit: AuditEntry) -> None:
        """Remove the session, its messages, cursors, memory, leases and idempotency records; audit
        stays."""

    # Messages

    async def add_message(self, new: NewMessage, guard: SessionGuard) -> AddedMessage:
        """Append to the log. `seq` is the session's last seq + 1: gapless from 1, and in commit
        order, so that a reader by cursor never misses one that commits later with a smaller seq.

        Order of checks: idempotency record first (same session, sender and key: the first answer
        again, duplicate=True, even if the session has been closed since; another fingerprint:
        Conflict with field idempotency_key; the caller must still be able to see the session, which
        the guard's SessionNotFound or PermissionDenied tells, only SessionClosed is passed over),
        then the guard, then the fence: at `created_at` the sender must hold that lease of this
        session with this token, else LeaseLost; then the parent: it must be a message of this
        session that policy.can_reply_to grants the sender, else
        MessageNotFound(field="parent_message_id").
        """

    async def list_messages(
        self, session_id: str, caller: Caller, query: MessageQuery, guard: SessionGuard
    ) -> MessagePage:
        """What the caller may see, of one snapshot. With after_seq: the oldest `limit` behind it,
        `offset` skipped. Without: the newest `limit` (before before_seq if given), the `offset`
        newest skipped. Cost without filters does not grow with the session."""

    async def get_message(
        self, session_id: str, message_id: int, caller: Caller, guard: SessionGuard
    ) -> Message:
        """Raise MessageNotFound if it is not there or the caller may not see it."""

    async def read_log(
        self,
        session_id: str,
        *,
        after_seq: int,
        before_seq: int | None = None,
        limit: int,
        guard: SessionGuard,
    ) -> list[Message]:
        """The log as it is, for whoever applies policy.can_see_message to each, in seq order: what
        stands first behind `after_seq`, or with `before_seq` last before it. It has been read to its
        end when nothing comes, or the session's last_seq has."""

    async def count_by_sender(
        self, session_id: str, caller: Caller, *, after_seq: int, guard: SessionGuard
    ) -> list[SenderCount]:
        """Visible messages behind after_seq by sender, most first, then by name."""

    async def get_newest_message_id(self) -> int:
        """The largest id that any message has had; 0 if there has been none."""

    async def list_new_messages(self, caller: Caller, *, after_id: int, limit: int) -> NewMessages:
        """What the caller may see of all sessions behind `after_id`, oldest first, at most `limit`.

        Ids are in commit order and never given out again: nothing comes later with an id up to
        next_after_id. A call looks at a bounded number of messages, visible or not, so there may be
        more although it returns few or none."""

    async def get_cursor(self, session_id: str, agent_id: str) -> int:
        """The agent's stored read position, 0 if none."""

    async def set_cursor(
        self, session_id: str, caller: Caller, seq: int, guard: SessionGuard
    ) -> tuple[int, int]:
        """Store max(stored, seq); return (stored seq, unread visible messages behind it).
        A seq behind the newest message that the caller may see raises
        InvalidArgument(field="seq")."""

    # Memory

    async def write_memory(
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
    ) -> WrittenMemory:
        """Apply `update` to the entry, atomically against all other writers of it. Version is 1 for
        a new entry (an expired one counts as missing), else the old one + 1. `guard` is given iff
        the address has a session. The idempotency record is looked up as in add_message, by
        (address.session_id, caller.agent_id, key); it answers the first call's entry as it was then,
        value excepted (the current value need not be kept for that). The fence is checked as in
        add_message, at `now`: a lease of address.session_id, server-wide where that is None."""

    async def get_memory(
        self, address: MemoryAddress, *, now: datetime, guard: SessionGuard | None
    ) -> MemoryEntry:
        """Raise MemoryNotFound if it is missing or expired at `now`."""

    async def list_memory(
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
        """Unexpired entries of one place whose key starts with `prefix` (literally, case-sensitively),
        by key in code point order, strictly after `after_key`."""

    async def delete_memory(
        self,
        address: MemoryAddress,
        check: Callable[[MemoryEntry], None],
        *,
        now: datetime,
        guard: SessionGuard | None,
        audit: AuditEntry,
    ) -> None:
        """Remove the entry if `check` does not raise; MemoryNotFound if missing or expired."""

    # Leases

    async def acquire_lease(
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

    async def release_lease(
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

    async def list_leases(
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

    async def purge(
        self, *, expired_before: datetime, idempotency_before: datetime, audit_before: datetime
    ) -> int:
        """Remove expired memory and credentials, old idempotency and audit rows, and the older part
        of the tail, in bounded steps that do not hold up other writers; return how many rows went."""

    # The tail: what was committed, for processes that wait for news of each other's writes

    def open_bell(self, on_ring: Callable[[], None]) -> Bell:
        """A bell that the processes that serve this store share. `on_ring` is called, in the loop,
        when another process rings, and when one might have rung unheard. The store closes it."""

    async def get_tail_position(self) -> TailPosition:
        """The end of the tail: whatever is committed afterwards, by any process, is behind it."""

    async def read_changes(self, after: TailPosition, limit: int) -> Changes:
        """What was committed behind `after`, each event once, about `limit` of them; fewer than
        `limit` means that the end is reached. On the tail are new messages, sessions created, closed
        and deleted, memory written and removed (with its session: no event of its own), leases
        taken, renewed and released, and what add_changes put there."""

    async def add_changes(self, events: Sequence[Event]) -> None:
        """Put on the tail what no other method puts there."""

    # Identity

    async def get_auth_state(self, known_generation: int | None) -> AuthState | None:
        """None if the generation still is `known_generation`, at the cost of one row."""

    async def add_key(self, key: ApiKey, audit: AuditEntry) -> None:
        """Store an active key."""

    async def list_keys(self) -> list[ApiKey]:
        """All keys, revoked ones too, by creation."""

    async def revoke_key(self, key_id: str, at: datetime, audit: AuditEntry) -> bool:
        """Revoke; False if there is no such active key."""

    async def add_credential(self, credential: Credential, audit: AuditEntry) -> None:
        """Record an issued token with its handle. Raises Unauthenticated if its family has been
        revoked."""

    async def find_credential(self, credential_id: str) -> Credential | None:
        """By jti, revoked and expired ones too until they are purged; of a jti that is not there
        (any more), the longest-lived credential that was refreshed from it."""

    async def find_credential_by_handle(self, handle_hash: str) -> Credential | None:
        """By the hash of the agent handle."""

    async def revoke_credentials(self, family_id: str, at: datetime, audit: AuditEntry) -> bool:
        """Revoke all tokens of the family and their handles; False if none of them is active."""

    # Agents and audit

    async def touch_agents(
        self, seen: Sequence[Agent], *, gone_before: datetime | None = None
    ) -> PresenceChange:
        """Upsert: first_seen stays, last_seen never goes backwards, the type is the latest.

        Agents not seen since `gone_before` (None: nobody is looked for) have left, those of `seen`
        that were not there have joined. Each coming and going is answered to one call only, of
        whatever process; who went unnoticed and is back has left and joined."""

    async def list_agents(
        self,
        session_id: str | None,
        caller: Caller,
        guard: SessionGuard | None,
        *,
        limit: int,
        before: tuple[datetime, str] | None = None,
    ) -> list[Agent]:
        """The first `limit` by (last_seen, agent_id), newest first, strictly older than `before`.
        With a session (and its guard): its creator, the invited and whoever has written what the
        caller may see, those the server has heard of."""

    async def find_known_agents(self, agent_ids: Sequence[str]) -> frozenset[str]:
        """Those of the ids that the server has heard of."""

    async def is_agent_type_known(self, agent_type: str) -> bool:
        """Whether an agent that the server has heard of is of this type. May read all of them."""

    async def add_audit(self, entry: AuditEntry) -> None:
        """Store one entry."""

    async def list_audit(self, query: AuditQuery) -> list[AuditEntry]:
        """Newest first."""

    async def find_clock_offset(self, boot_id: str) -> int | None:
        """The largest that was noted for this boot of a machine, microseconds."""

    async def note_clock_offset(self, boot_id: str, offset_us: int) -> None:
        """Keep it, unless a larger one is kept."""

    async def get_stats(self, *, active_since: datetime) -> StoreStats:
        """Counts of active sessions and of agents seen since then."""
