"""The data model: sessions, messages, memory, leases, callers and events as immutable records.

Times are aware UTC datetimes with microseconds. JSON values are Python values as from `json.loads`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field, JsonValue

from shared_context_server.steady_time import utc_now

JsonObject = dict[str, JsonValue]


class Permission(StrEnum):
    """What a caller may do in general. Visibility and access decide for each message and session."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


class Visibility(StrEnum):
    """Which readers of a session see a message."""

    PUBLIC = "public"
    PRIVATE = "private"
    AGENT_ONLY = "agent_only"
    ADMIN_ONLY = "admin_only"


class Access(StrEnum):
    """Who may read and write a session."""

    OPEN = "open"
    INVITED = "invited"


class SessionStatus(StrEnum):
    """Closed sessions are read-only."""

    ACTIVE = "active"
    CLOSED = "closed"


class TaskState(StrEnum):
    """What may happen to a task: ready may be claimed, blocked waits for other tasks, claimed belongs
    to one worker until its claim runs out, done and failed are finished."""

    READY = "ready"
    BLOCKED = "blocked"
    CLAIMED = "claimed"
    DONE = "done"
    FAILED = "failed"


class TaskOutcome(StrEnum):
    """How a worker ends its claim. Released: the task is ready again."""

    DONE = "done"
    FAILED = "failed"
    RELEASED = "released"


class Ack(StrEnum):
    """Whether a message asks its readers for an acknowledgement, or is one."""

    NONE = ""
    REQUIRED = "required"
    GIVEN = "given"


class MemoryScope(StrEnum):
    """Whether an entry belongs to one agent or to all."""

    PRIVATE = "private"
    SHARED = "shared"


class MemoryMode(StrEnum):
    """How set_memory combines the new value with the stored one."""

    REPLACE = "replace"
    CREATE = "create"
    MERGE = "merge"
    APPEND = "append"
    INCREMENT = "increment"


@dataclass(frozen=True, slots=True)
class Caller:
    """The agent that calls, with the permissions of its credential.

    `key_id` is the API key of the credential. `credential_id` is the id (jti) of the token, None if
    the key itself was presented. `origin_id` is the first token of the login, if this token was
    refreshed. The anonymous caller has no permissions. `instance` is the thread of the client that
    calls, as the client names it; "" if it names none. It is a name, not a credential.
    """

    agent_id: str
    agent_type: str
    permissions: frozenset[Permission]
    key_id: str
    credential_id: str | None = None
    origin_id: str | None = None
    instance: str = ""

    @property
    def family_id(self) -> str | None:
        """The id of the first token of the login, which all its refreshed tokens share."""
        return self.origin_id or self.credential_id

    @property
    def is_anonymous(self) -> bool:
        return not self.agent_id

    @property
    def is_admin(self) -> bool:
        return Permission.ADMIN in self.permissions


ANONYMOUS = Caller(agent_id="", agent_type="", permissions=frozenset(), key_id="")


class Session(NamedTuple):
    """A log of messages and who may use it. `last_seq` is the newest message's seq, 0 if there was none.
    Its messages have the seqs from `first_seq` to last_seq; those before first_seq were removed, perhaps
    all. A tuple, like Message, because each call that uses a session makes one."""

    id: str
    purpose: str
    metadata: JsonObject
    access: Access
    status: SessionStatus
    created_by: str
    created_at: datetime
    closed_at: datetime | None
    invited: tuple[str, ...]
    last_seq: int = 0
    first_seq: int = 1

    @property
    def removed_up_to(self) -> int:
        """The seq of the last message that was removed, 0 if none was."""
        return self.first_seq - 1


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session as one caller sees it: counts and activity include only messages visible to them."""

    session: Session
    message_count: int
    unread: int
    last_activity: datetime


class Message(NamedTuple):
    """One message of a session's log. It never changes. `sender_instance`: see Caller.instance.
    `ack` is GIVEN for the acknowledgement of its parent by its sender. A
    tuple, because thousands are made, and a frozen dataclass is slow to create."""

    id: int
    session_id: str
    seq: int
    sender: str
    sender_type: str
    content: str
    visibility: Visibility
    recipients: list[str]
    metadata: JsonObject
    parent_message_id: int | None
    timestamp: datetime
    sender_instance: str = ""
    ack: Ack = Ack.NONE


@dataclass(frozen=True, slots=True)
class MemoryAddress:
    """The address of a memory entry. `owner` None means shared, `session_id` None server-wide."""

    key: str
    session_id: str | None
    owner: str | None

    @property
    def scope(self) -> MemoryScope:
        return MemoryScope.SHARED if self.owner is None else MemoryScope.PRIVATE


@dataclass(frozen=True, slots=True)
class MemoryEntry:
    """A stored value. `version` counts its writes from 1.

    `is_readable` False: the stored value has an integer with more digits than Python reads, and is
    None here. Earlier versions accepted such integers.
    """

    address: MemoryAddress
    value: JsonValue
    version: int
    metadata: JsonObject
    created_at: datetime
    updated_at: datetime
    updated_by: str
    expires_at: datetime | None
    is_readable: bool = True


@dataclass(frozen=True, slots=True)
class Lease:
    """A lock with an expiry: it is held until `expires_at`, or until it is released.

    `session_id` None means server-wide. `fencing_token` grows each time the lease is acquired.
    `instance`: the thread of the holder that acquired it; "" if it named none. `paths`: the patterns of
    paths that it protects.
    """

    session_id: str | None
    name: str
    holder: str
    fencing_token: int
    acquired_at: datetime
    expires_at: datetime
    instance: str = ""
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskBlocker:
    """A task that another one waits for."""

    task_id: int
    state: TaskState


@dataclass(frozen=True, slots=True)
class Task:
    """A task of a session as it is at one moment: a claim that has run out is READY.

    `id` numbers the tasks of a session from 1. `assignee`: the only agent that may claim it, None if
    any may. `blocked_by`: what it waits for; empty unless it is BLOCKED. `claimed_by`, `instance`,
    `fencing_token` and `expires_at` are those of the claim; None and "" if it is not CLAIMED.
    `result` is what the last worker gave, `finished_by` and `finished_at` stand for DONE and FAILED.
    """

    id: int
    session_id: str
    title: str
    body: str
    state: TaskState
    priority: int
    assignee: str | None
    depends_on: tuple[int, ...]
    blocked_by: tuple[TaskBlocker, ...]
    metadata: JsonObject
    created_by: str
    created_at: datetime
    claimed_by: str | None
    instance: str
    fencing_token: int | None
    expires_at: datetime | None
    result: JsonValue
    finished_by: str | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent that has called the server."""

    agent_id: str
    agent_type: str
    first_seen: datetime
    last_seen: datetime


class AgentState(StrEnum):
    """What an agent says that it is doing."""

    WORKING = "working"
    BLOCKED = "blocked"
    IDLE = "idle"
    DONE = "done"


class Activity(StrEnum):
    """What an agent, or one of its instances, is doing, as far as the server can tell.

    Blocked: it waits for a lease or a task that another one holds, or says that it is blocked. Silent:
    not heard of for much longer than is usual for it. Waiting: for anything else. Idle: it says that
    it is idle or done. Away: not heard of for an hour or more. Listed in this order.
    """

    BLOCKED = "blocked"
    SILENT = "silent"
    WAITING = "waiting"
    WORKING = "working"
    IDLE = "idle"
    AWAY = "away"


class Waiting(NamedTuple):
    """What a call waits for: new messages of a session, a lease, or a task of a session. `session_id`
    None: messages of several sessions, or a lease of the whole server. `name`: the lease's; of a task
    that of its claim, None for any task."""

    kind: Literal["messages", "lease", "task"]
    session_id: str | None
    name: str | None = None


class InstanceSeen(NamedTuple):
    """A call of one instance of an agent. `action` is the tool, "" if it only goes on waiting.
    `waits_since`: when the waiting call began. `session_id`: of the last call that named one, None if
    none has."""

    agent_id: str
    instance: str
    last_seen: datetime
    action: str
    waits_for: Waiting | None
    waits_since: datetime | None = None
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """What one instance of an agent does. `instance` "": the agent's calls that name no thread.

    `status` and `state` are its own words; `since` is when it set them, None if it has not.
    `last_action` is the last tool that it has called. `waits_for` is what it was waiting for at
    `last_seen`, and `waits_since` when that call began; None if it did not wait.
    """

    agent_id: str
    instance: str
    last_seen: datetime
    last_action: str
    state: AgentState | None
    status: str
    since: datetime | None
    waits_for: Waiting | None
    waits_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key that is bound to an agent id, to a type unless that is None, and to permissions. Only
    the hash of the key is stored.

    `is_pattern`: `agent_id` is a pattern, in which * stands for any characters. `last_used_at` is
    accurate to some minutes. `label` is the operator's note. `replaced_by` is the id of the key that
    a rotation made.
    """

    id: str
    agent_id: str
    permissions: frozenset[Permission]
    secret_hash: str
    created_at: datetime
    revoked_at: datetime | None = None
    agent_type: str | None = None
    is_pattern: bool = False
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    label: str | None = None
    replaced_by: str | None = None

    def describe_status(self, now: datetime) -> str:
        """In one word: active, replaced (by a rotation, and still valid), expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "active" if self.replaced_by is None else "replaced"


@dataclass(frozen=True, slots=True)
class Credential:
    """An issued token and its agent handle. `id` is the jti. `origin_id` is the first token of the
    login, None if this is the first one."""

    id: str
    agent_id: str
    agent_type: str
    permissions: frozenset[Permission]
    key_id: str
    handle_hash: str
    issued_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    origin_id: str | None = None

    @property
    def family_id(self) -> str:
        """As Caller.family_id."""
        return self.origin_id or self.id


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry of the audit log. It never contains a secret. The store sets `id` and `hash`, which is
    empty for an entry that is not in the chain."""

    event_type: str
    agent_id: str
    session_id: str | None = None
    details: JsonObject = field(default_factory=dict)
    timestamp: datetime = field(default_factory=utc_now)
    id: int = 0
    hash: str = ""

    @classmethod
    def by(
        cls,
        caller: Caller,
        event_type: str,
        session_id: str | None = None,
        details: JsonObject | None = None,
    ) -> AuditEntry:
        """An entry of what the caller has done, with its instance in the details if it has one."""
        shown = dict(details or {})
        if caller.instance:
            shown["instance"] = caller.instance
        return cls(event_type, caller.agent_id, session_id, shown)


MAX_AGENT_ID_CHARS = 128
MAX_INSTANCE_CHARS = 128
_AGENT_NAME = re.compile(r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?")
AGENT_NAME_PATTERN = f"^{_AGENT_NAME.pattern}$"


def _require_agent_name(value: str) -> str:
    if _AGENT_NAME.fullmatch(value) is None:
        raise ValueError("must not have control characters or spaces at its start or end")
    return value


AgentId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_AGENT_ID_CHARS,
        json_schema_extra={"pattern": AGENT_NAME_PATTERN},
    ),
    AfterValidator(_require_agent_name),
]
"""1–128 characters without control characters, with inner spaces. For new agents the stricter rules of
auth.agent_names apply too."""

AgentType = AgentId
"""The same form as an agent's id."""


class EventKind(StrEnum):
    """The kinds of committed changes."""

    MESSAGE_ADDED = "message_added"
    SESSION_CREATED = "session_created"
    SESSION_CLOSED = "session_closed"
    SESSION_DELETED = "session_deleted"
    MESSAGES_EXPIRED = "messages_expired"
    MEMORY_CHANGED = "memory_changed"
    LEASE_CHANGED = "lease_changed"
    AGENT_JOINED = "agent_joined"
    AGENT_LEFT = "agent_left"
    LOG_SET_BACK = "log_set_back"
    CREDENTIAL_ENDED = "credential_ended"  # of one stream, so it is never stored or published


@dataclass(frozen=True, slots=True)
class Event:
    """A committed change. It has only ids: each receiver reads the data with its own permissions.

    `seq`: the message's; of MESSAGES_EXPIRED the session's first_seq, if it is known. `name`: the memory
    key or the lease. `owner`: of private memory, None for
    shared memory. `agent_id`: the agent that joined or left.
    """

    kind: EventKind
    session_id: str | None = None
    seq: int | None = None
    name: str | None = None
    owner: str | None = None
    agent_id: str | None = None
