# Written by `make docs` from the server's registry of tools. Do not edit.
"""What the tools answer."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import JsonValue

from shared_context_client.wire import KeepUnknown, Record

Access = Annotated[Literal["open", "invited"], KeepUnknown]

AgentState = Annotated[Literal["working", "blocked", "idle", "done"], KeepUnknown]

MemoryMode = Annotated[Literal["replace", "create", "merge", "append", "increment"], KeepUnknown]

MemoryScope = Annotated[Literal["private", "shared"], KeepUnknown]

Permission = Annotated[Literal["read", "write", "admin"], KeepUnknown]

SearchMode = Annotated[Literal["fuzzy", "semantic", "hybrid"], KeepUnknown]

SessionStatus = Annotated[Literal["active", "closed"], KeepUnknown]

SortOrder = Annotated[Literal["score", "newest"], KeepUnknown]

TaskOutcome = Annotated[Literal["done", "failed", "released"], KeepUnknown]

TaskState = Annotated[Literal["ready", "blocked", "claimed", "done", "failed"], KeepUnknown]

Visibility = Annotated[Literal["public", "private", "agent_only", "admin_only"], KeepUnknown]

Within = Annotated[Literal["messages", "memory", "all"], KeepUnknown]


class TokenResult(Record):
    """Answer of authenticate_agent, refresh_token."""

    token: str
    token_type: Annotated[Literal["Bearer"], KeepUnknown]
    agent_handle: str | None
    agent_id: str
    agent_type: str
    permissions: list[Permission]
    expires_at: datetime
    expires_in: int
    next: str


class RevokeResult(Record):
    """Answer of revoke_token."""

    revoked: bool
    jti: str


class CreatedSession(Record):
    """Answer of create_session."""

    session_id: str
    created_by: str
    created_at: datetime


class SessionItem(Record):
    """SessionItem, in an answer."""

    session_id: str
    purpose: str
    metadata: dict[str, JsonValue]
    access: Access
    status: SessionStatus
    created_by: str
    created_at: datetime
    closed_at: datetime | None
    message_count: int
    unread: int
    last_activity: datetime
    first_seq: int = 1


class SessionPage(Record):
    """Answer of list_sessions."""

    sessions: list[SessionItem]
    next_cursor: str | None


class MessageItem(Record):
    """MessageItem, in an answer."""

    id: int
    session_id: str
    seq: int
    sender: str
    sender_type: str
    content: str
    visibility: Visibility
    recipients: list[str]
    metadata: dict[str, JsonValue]
    parent_message_id: int | None
    timestamp: datetime
    sender_instance: str = ""
    requires_ack: bool = False


class SessionDetails(Record):
    """Answer of get_session."""

    session: SessionItem
    participants: list[str]
    message_count: int
    messages: list[MessageItem]


class ClosedSession(Record):
    """Answer of close_session."""

    session_id: str
    status: SessionStatus
    closed_at: datetime | None


class DeletedSession(Record):
    """Answer of delete_session."""

    session_id: str
    deleted: bool


class MessageAdded(Record):
    """Answer of add_message."""

    message_id: int
    seq: int
    timestamp: datetime
    duplicate: bool
    unknown_recipients: list[str] = []  # noqa: RUF012 - pydantic copies it


class MessageList(Record):
    """Answer of get_messages."""

    messages: list[MessageItem]
    count: int
    total_count: int
    has_more: bool
    next_after_seq: int
    first_seq: int = 1


class WaitResult(Record):
    """Answer of wait_for_messages."""

    cursors: dict[str, int] | None
    first_seqs: dict[str, int] = {}  # noqa: RUF012 - pydantic copies it
    messages: list[MessageItem]
    next_after_seq: int | None
    timed_out: bool


class MarkedRead(Record):
    """Answer of mark_read."""

    seq: int
    unread: int


class DigestResult(Record):
    """Answer of get_digest."""

    digest: str
    message_count: int
    estimated_tokens: int
    next_after_seq: int
    first_seq: int = 1


class SearchResult(Record):
    """SearchResult, in an answer."""

    message: MessageItem
    score: float
    match_preview: str
    highlights: list[list[int]]
    shortened: bool


class MemoryResult(Record):
    """MemoryResult, in an answer."""

    key: str
    scope: MemoryScope
    session_id: str | None
    version: int
    updated_at: datetime
    updated_by: str
    score: float
    match_preview: str
    highlights: list[list[int]]


class SearchResults(Record):
    """Answer of search_context."""

    results: list[SearchResult]
    memory: list[MemoryResult]
    count: int
    next_cursor: str | None
    search_time_ms: float
    scanned: int
    exhaustive: bool


class AcknowledgedBy(Record):
    """AcknowledgedBy, in an answer."""

    agent_id: str
    acknowledged_at: datetime


class MessageAcknowledged(Record):
    """Answer of acknowledge_message."""

    acknowledged: bool
    acknowledged_at: datetime | None
    acknowledged_by: list[AcknowledgedBy] | None
    awaiting: list[str] | None


class MemorySet(Record):
    """Answer of set_memory."""

    key: str
    version: int
    scope: MemoryScope
    session_id: str | None
    expires_at: datetime | None
    duplicate: bool


class MemoryValue(Record):
    """Answer of get_memory."""

    key: str
    value: JsonValue
    version: int
    scope: MemoryScope
    session_id: str | None
    metadata: dict[str, JsonValue]
    created_at: datetime
    updated_at: datetime
    updated_by: str
    expires_at: datetime | None


class MemoryItem(Record):
    """MemoryItem, in an answer."""

    key: str
    version: int
    metadata: dict[str, JsonValue]
    size_bytes: int
    created_at: datetime
    updated_at: datetime
    updated_by: str
    expires_at: datetime | None


class MemoryList(Record):
    """Answer of list_memory."""

    entries: list[MemoryItem]
    count: int
    next_cursor: str | None


class MemoryDeleted(Record):
    """Answer of delete_memory."""

    key: str
    deleted: bool


class LeaseAcquired(Record):
    """Answer of acquire_lease."""

    acquired: bool
    name: str
    session_id: str | None
    fencing_token: int | None
    holder: str | None
    expires_at: datetime
    instance: str = ""
    paths: list[str] = []  # noqa: RUF012 - pydantic copies it


class LeaseReleased(Record):
    """Answer of release_lease."""

    released: bool
    name: str
    session_id: str | None


class LeaseItem(Record):
    """LeaseItem, in an answer."""

    name: str
    session_id: str | None
    fencing_token: int
    holder: str
    acquired_at: datetime
    expires_at: datetime
    instance: str = ""
    paths: list[str] = []  # noqa: RUF012 - pydantic copies it


class LeaseList(Record):
    """Answer of list_leases."""

    leases: list[LeaseItem]
    count: int
    next_cursor: str | None


class BlockerItem(Record):
    """BlockerItem, in an answer."""

    task_id: int
    state: TaskState


class TaskItem(Record):
    """TaskItem, in an answer."""

    id: int
    session_id: str
    title: str
    body: str
    state: TaskState
    priority: int
    assignee: str | None
    depends_on: list[int]
    blocked_by: list[BlockerItem]
    metadata: dict[str, JsonValue]
    created_by: str
    created_at: datetime
    claimed_by: str | None
    instance: str
    fencing_token: int | None
    expires_at: datetime | None
    result: JsonValue
    finished_by: str | None
    finished_at: datetime | None


class TaskChanged(Record):
    """Answer of add_task, finish_task."""

    task: TaskItem
    duplicate: bool


class TaskCountsItem(Record):
    """TaskCountsItem, in an answer."""

    ready: int
    blocked: int
    claimed: int
    done: int
    failed: int


class TaskClaimed(Record):
    """Answer of claim_task."""

    task: TaskItem | None
    renewed: bool
    duplicate: bool
    hint: str | None
    counts: TaskCountsItem
    next_expires_at: datetime | None


class TaskList(Record):
    """Answer of list_tasks."""

    tasks: list[TaskItem]
    count: int
    counts: TaskCountsItem
    next_expires_at: datetime | None
    next_cursor: str | None


class WaitsFor(Record):
    """WaitsFor, in an answer."""

    kind: Annotated[Literal["messages", "lease", "task"], KeepUnknown]
    session_id: str | None
    name: str | None


class HeldItem(Record):
    """HeldItem, in an answer."""

    kind: Annotated[Literal["lease"], KeepUnknown]
    session_id: str | None
    name: str
    expires_at: datetime
    instance: str = ""


class InstanceItem(Record):
    """InstanceItem, in an answer."""

    instance: str = ""
    state: AgentState | None
    status: str
    since: datetime | None
    last_seen: datetime
    last_action: str
    waits_for: WaitsFor | None


class AgentItem(Record):
    """AgentItem, in an answer."""

    instance: str = ""
    state: AgentState | None
    status: str
    since: datetime | None
    last_seen: datetime
    last_action: str
    waits_for: WaitsFor | None
    agent_id: str
    agent_type: str
    active: bool
    holds: list[HeldItem]
    other_instances: list[InstanceItem]


class AgentList(Record):
    """Answer of list_agents."""

    agents: list[AgentItem]
    count: int
    next_cursor: str | None


class StatusSet(Record):
    """Answer of set_status."""

    status: str
    state: AgentState | None
    since: datetime | None
    instance: str = ""


class AuditItem(Record):
    """AuditItem, in an answer."""

    id: int
    timestamp: datetime
    event_type: str
    agent_id: str
    session_id: str | None
    details: dict[str, JsonValue]
    hash: str = ""


class ChainEnds(Record):
    """ChainEnds, in an answer."""

    start_id: int
    anchor_id: int
    anchor_hash: str
    head_id: int
    head_hash: str


class AuditList(Record):
    """Answer of get_audit_log."""

    entries: list[AuditItem]
    count: int
    next_cursor: str | None
    chain: ChainEnds | None = None


class TimeResult(Record):
    """Answer of get_time."""

    time: datetime
    epoch_s: float
    earliest: datetime | None
    latest: datetime | None
    source: Annotated[Literal["shared_memory", "system"], KeepUnknown]
    synchronized: bool
    age_ms: float | None
    stale: bool
    sequence: int | None
    hint: str | None


class SensorResult(Record):
    """Answer of get_temperature, get_humidity."""

    value: float | None
    unit: str
    valid: bool
    age_ms: float
    stale: bool
    sequence: int
    simulated: bool


class SensorItem(Record):
    """SensorItem, in an answer."""

    value: float | None
    unit: str
    valid: bool
    age_ms: float
    stale: bool
    sequence: int
    simulated: bool


class SensorsResult(Record):
    """Answer of get_all_sensors."""

    sensors: dict[str, SensorItem]
