"""The things the server is about, as plain immutable records.

Times are aware UTC datetimes with microseconds. JSON values are Python values as
`json.loads` gives them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field, JsonValue

from shared_context_server.steady_time import utc_now

JsonObject = dict[str, JsonValue]


class Permission(StrEnum):
    """What a caller may do at all; visibility decides on what."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


class Visibility(StrEnum):
    """Who sees a message among those who may read its session."""

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


class MemoryScope(StrEnum):
    """Whose an entry is: the agent's own, or everybody's."""

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
    """Who is calling, as one credential says.

    `key_id` is the API key behind the credential, `credential_id` the id of the token, which
    clients know as its jti (None when the key itself was presented), `origin_id` that of the token
    that it was refreshed from, by however many steps. The anonymous caller has no permissions.
    """

    agent_id: str
    agent_type: str
    permissions: frozenset[Permission]
    key_id: str
    credential_id: str | None = None
    origin_id: str | None = None

    @property
    def family_id(self) -> str | None:
        """The id of the first token of the login, which all that are refreshed from it share."""
        return self.origin_id or self.credential_id

    @property
    def is_anonymous(self) -> bool:
        return not self.agent_id

    @property
    def is_admin(self) -> bool:
        return Permission.ADMIN in self.permissions


ANONYMOUS = Caller(agent_id="", agent_type="", permissions=frozenset(), key_id="")


class Session(NamedTuple):
    """A log of messages and who may use it. `last_seq` is the newest message's seq, 0 if none. A tuple
    as messages are: one is made for each call that uses a session."""

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


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session as one caller sees it; counts and activity cover only what that caller may see."""

    session: Session
    message_count: int
    unread: int
    last_activity: datetime


class Message(NamedTuple):
    """One entry of a session's log; it never changes. A tuple, because they are made by the
    thousand, and a frozen dataclass sets its fields one call each."""

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


@dataclass(frozen=True, slots=True)
class MemoryAddress:
    """Where an entry lives. `owner` None means shared, `session_id` None means server-wide."""

    key: str
    session_id: str | None
    owner: str | None

    @property
    def scope(self) -> MemoryScope:
        return MemoryScope.SHARED if self.owner is None else MemoryScope.PRIVATE


@dataclass(frozen=True, slots=True)
class MemoryEntry:
    """A stored value; `version` counts its writes from 1.

    `is_readable` False: the value is None here, since what is stored cannot be read: it has an
    integer of more digits than Python and most parsers read, which earlier versions let come about.
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
    """An exclusive right for a time: held until `expires_at`, or until it is released.

    `session_id` None means server-wide. `fencing_token` is larger than that of every earlier
    holding of the same name in the same place.
    """

    session_id: str | None
    name: str
    holder: str
    fencing_token: int
    acquired_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent the server has heard of."""

    agent_id: str
    agent_type: str
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key bound to an agent id and a ceiling of permissions, and to an agent type unless that is
    None; only its hash is kept."""

    id: str
    agent_id: str
    permissions: frozenset[Permission]
    secret_hash: str
    created_at: datetime
    revoked_at: datetime | None = None
    agent_type: str | None = None


@dataclass(frozen=True, slots=True)
class Credential:
    """An issued token (by its jti) and the agent handle that goes with it. `origin_id`: the token
    that it was refreshed from, by however many steps; None if a key was traded for it."""

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
    """Something an operator may have to account for later. Never holds a secret."""

    event_type: str
    agent_id: str
    session_id: str | None = None
    details: JsonObject = field(default_factory=dict)
    timestamp: datetime = field(default_factory=utc_now)
    id: int = 0


MAX_AGENT_ID_CHARS = 128
_AGENT_NAME = re.compile(r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?")
AGENT_NAME_PATTERN = f"^{_AGENT_NAME.pattern}$"


def _require_agent_name(value: str) -> str:
    if _AGENT_NAME.fullmatch(value) is None:
        raise ValueError("must not have control characters, nor spaces around it")
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
"""1–128 characters without control characters; inner spaces are fine. What names a new agent has to
keep to the narrower rules of auth.agent_names; what exists is found by this."""

AgentType = AgentId
"""The same form as an agent's id."""


class EventKind(StrEnum):
    """What has happened, and is committed."""

    MESSAGE_ADDED = "message_added"
    SESSION_CREATED = "session_created"
    SESSION_CLOSED = "session_closed"
    SESSION_DELETED = "session_deleted"
    MEMORY_CHANGED = "memory_changed"
    LEASE_CHANGED = "lease_changed"
    AGENT_JOINED = "agent_joined"
    AGENT_LEFT = "agent_left"
    LOG_SET_BACK = "log_set_back"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that is committed, by ids only: whoever hears of it reads under their own rights.

    `seq`: of the message. `name`: the memory key or the lease. `owner`: of private memory, None for
    shared. `agent_id`: who joined or left.
    """

    kind: EventKind
    session_id: str | None = None
    seq: int | None = None
    name: str | None = None
    owner: str | None = None
    agent_id: str | None = None
