"""Convert rows to models and back, and encode fields: times, JSON, permissions.

Each list of columns stands next to the functions that read and make its rows by position. Add a new
column at the end of its list; anywhere else it changes the positions in these functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NoReturn

from pydantic import JsonValue
from pydantic_core import from_json, to_json

from shared_context_server.models import (
    Access,
    Ack,
    Agent,
    AgentState,
    ApiKey,
    Credential,
    Instance,
    InstanceSeen,
    Lease,
    MemoryAddress,
    MemoryEntry,
    Message,
    Permission,
    Session,
    SessionStatus,
    Task,
    TaskBlocker,
    TaskState,
    Visibility,
    Waiting,
)
from shared_context_server.storage.contract import MemoryListing, TaskLink

Row = tuple[Any, ...]

MAX_INTEGER = 2**63 - 1  # the largest integer SQLite stores

_DIGITS_AT_ONCE = 600  # below the least limit that Python can be given (sys.set_int_max_str_digits)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def encode_time(at: datetime) -> int:
    """Return whole microseconds since the epoch."""
    return (at - _EPOCH) // _MICROSECOND


def encode_optional_time(at: datetime | None) -> int | None:
    return None if at is None else encode_time(at)


def decode_time(microseconds: int) -> datetime:
    return _EPOCH + microseconds * _MICROSECOND


def decode_optional_time(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else decode_time(microseconds)


def parse_time(text: str) -> int:
    """Return the time of an ISO 8601 text as it is stored. Raises ValueError if it has no offset."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("must be a time in UTC")
    return encode_time(at.astimezone(UTC))


def spell_time(microseconds: int) -> str:
    """Return a stored time as ISO 8601 text in UTC, with Z and always six digits of a second."""
    return decode_time(microseconds).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def clamp(number: int) -> int:
    """Return the nearest integer that SQLite can compare with. Callers may send bounds of any size."""
    return max(-MAX_INTEGER, min(number, MAX_INTEGER))


def encode_json(value: JsonValue | tuple[str, ...]) -> str:
    if value == () or value == {}:  # the usual recipients and metadata
        return "{}" if value == {} else "[]"
    return to_json(value).decode()


def decode_json(text: str) -> Any:
    """Return the value of a JSON text. Raises ValueError for an integer of more digits than Python
    reads, which a memory value of an earlier version may have."""
    try:
        return from_json(text)
    except ValueError:
        # from_json stops at a depth of 200.
        return json.loads(text)


def decode_json_exactly(text: str | bytes) -> Any:
    """Return the value of a JSON text, whatever the size of its integers: copies must lose nothing.
    Raises ValueError for invalid JSON."""
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        return json.loads(text, parse_int=_parse_long_integer, parse_constant=_refuse_constant)


def _parse_long_integer(digits: str) -> int:
    """Parse in parts, because int() refuses texts longer than some thousand digits."""
    sign, digits = (-1, digits[1:]) if digits.startswith("-") else (1, digits)
    number = 0
    for start in range(0, len(digits), _DIGITS_AT_ONCE):
        part = digits[start : start + _DIGITS_AT_ONCE]
        number = number * 10 ** len(part) + int(part)
    return sign * number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def encode_permissions(permissions: frozenset[Permission]) -> str:
    return " ".join(sorted(permissions))


def decode_permissions(text: str) -> frozenset[Permission]:
    return frozenset(Permission(word) for word in text.split())


def _find_positions(columns: str, *names: str) -> tuple[int, ...]:
    """Return the positions of columns in a list of them."""
    listed = [column.strip().rpartition(".")[2] for column in columns.split(",")]
    return tuple(listed.index(name) for name in names)


SESSION = """
    s.id, s.purpose, s.metadata, s.access, s.status, s.created_by, s.created_at, s.closed_at,
    s.invited, (SELECT seq FROM messages WHERE session_id = s.id ORDER BY seq DESC LIMIT 1) AS last_seq,
    s.first_seq
"""


SESSION_TEXT_COLUMNS = _find_positions(SESSION, "purpose", "metadata", "invited")


def to_session(row: Row) -> Session:
    *columns, last_seq, first_seq = row
    is_small = sum(len(row[at]) for at in SESSION_TEXT_COLUMNS) <= _REMEMBERED_BYTES
    session = (_recall_session if is_small else _to_empty_session)(*columns)
    if first_seq > 1:
        return session._replace(last_seq=last_seq or first_seq - 1, first_seq=first_seq)
    return session._replace(last_seq=last_seq) if last_seq else session


def _to_empty_session(
    session_id: str,
    purpose: str,
    metadata: str,
    access: str,
    status: str,
    created_by: str,
    created_at: int,
    closed_at: int | None,
    invited: str,
) -> Session:
    return Session(
        id=session_id,
        purpose=purpose,
        metadata=decode_json(metadata),
        access=Access(access),
        status=SessionStatus(status),
        created_by=created_by,
        created_at=decode_time(created_at),
        closed_at=decode_optional_time(closed_at),
        invited=tuple(decode_json(invited)),
    )


_REMEMBERED_BYTES = 4096
# All but the seqs of a session stays the same from call to call.
_recall_session = lru_cache(maxsize=256)(_to_empty_session)


MESSAGE = """
    m.id, m.session_id, m.seq, m.sender, m.sender_type, m.content, m.visibility, m.recipients,
    m.metadata, m.parent_message_id, m.created_at, m.sender_instance, m.ack
"""


MESSAGE_TEXT_COLUMNS = _find_positions(MESSAGE, "content", "recipients", "metadata")
"""The columns of MESSAGE that may be long."""


def to_message(row: Row) -> Message:
    return Message(
        id=row[0],
        session_id=row[1],
        seq=row[2],
        sender=row[3],
        sender_type=row[4],
        content=row[5],
        visibility=Visibility(row[6]),
        recipients=decode_json(row[7]),
        metadata=decode_json(row[8]),
        parent_message_id=row[9],
        timestamp=decode_time(row[10]),
        sender_instance=row[11],
        ack=Ack(row[12]) if row[12] else Ack.NONE,
    )


def from_message(message: Message) -> Row:
    """Return the row that to_message reads as this message."""
    return (
        *message[:6],
        message.visibility.value,
        encode_json(tuple(message.recipients)),
        encode_json(message.metadata),
        message.parent_message_id,
        encode_time(message.timestamp),
        message.sender_instance,
        message.ack.value,
    )


MEMORY_ENTRY = "version, created_at, updated_at, updated_by, expires_at, metadata, value"


def to_memory_entry(address: MemoryAddress, row: Row) -> MemoryEntry:
    value, is_readable = _decode_value(row[6])
    return MemoryEntry(
        address=address,
        version=row[0],
        created_at=decode_time(row[1]),
        updated_at=decode_time(row[2]),
        updated_by=row[3],
        expires_at=decode_optional_time(row[4]),
        metadata=decode_json(row[5]),
        value=value,
        is_readable=is_readable,
    )


KEYED_MEMORY_TEXT_COLUMNS = (2, 8, 9)
"""The columns that may be long, of a row (session_id, owner, key, *MEMORY_ENTRY)."""


def to_keyed_memory_entry(row: Row) -> MemoryEntry:
    """Return the entry of a row (session_id, owner, key, *MEMORY_ENTRY)."""
    session_id, owner, key, *columns = row
    address = MemoryAddress(key=key, session_id=session_id or None, owner=owner or None)
    return to_memory_entry(address, tuple(columns))


def _decode_value(text: str) -> tuple[JsonValue, bool]:
    """Return the value, and whether it could be read."""
    try:
        return decode_json(text), True
    except ValueError:
        return None, False


MEMORY_LISTING = (
    "key, version, created_at, updated_at, updated_by, expires_at, metadata, size_bytes"
)


MEMORY_LISTING_TEXT_COLUMNS = _find_positions(MEMORY_LISTING, "key", "metadata")


def to_memory_listing(session_id: str | None, owner: str | None, row: Row) -> MemoryListing:
    return MemoryListing(
        address=MemoryAddress(key=row[0], session_id=session_id, owner=owner),
        version=row[1],
        created_at=decode_time(row[2]),
        updated_at=decode_time(row[3]),
        updated_by=row[4],
        expires_at=decode_optional_time(row[5]),
        metadata=decode_json(row[6]),
        size_bytes=row[7],
    )


LEASE = "name, holder, fencing_token, acquired_at, expires_at, instance, paths"


def to_lease(session_id: str | None, row: Row) -> Lease:
    return Lease(
        session_id=session_id,
        name=row[0],
        holder=row[1],
        fencing_token=row[2],
        acquired_at=decode_time(row[3]),
        expires_at=decode_time(row[4]),
        instance=row[5],
        paths=() if row[6] == "[]" else tuple(decode_json(row[6])),
    )


TASK = """
    t.session_id, t.id, t.state, t.priority, t.assignee, t.created_by, t.created_at, t.claimed_by,
    t.instance, t.fencing_token, t.expires_at, t.finished_by, t.finished_at, t.depends_on, t.title,
    t.metadata, t.body, t.result
"""
TASK_TEXT_COLUMNS = _find_positions(TASK, "depends_on", "title", "metadata", "body", "result")
TASK_STATE, TASK_DEPENDS_ON = _find_positions(TASK, "state", "depends_on")


def to_task(row: Row, now: datetime, states: Mapping[int, TaskState]) -> Task:
    """Return the task as it is at `now`. `states`: those of the tasks it depends on, if it is
    blocked."""
    state = see_task_state(row[2], row[10], now)
    is_claimed = state is TaskState.CLAIMED
    is_finished = state in (TaskState.DONE, TaskState.FAILED)
    depends_on = tuple(decode_json(row[13]))
    blocked_by = tuple(
        TaskBlocker(task_id, states[task_id])
        for task_id in depends_on
        if state is TaskState.BLOCKED and states[task_id] is not TaskState.DONE
    )
    return Task(
        id=row[1],
        session_id=row[0],
        title=row[14],
        body=row[16],
        state=state,
        priority=row[3],
        assignee=row[4] or None,
        depends_on=depends_on,
        blocked_by=blocked_by,
        metadata=decode_json(row[15]),
        created_by=row[5],
        created_at=decode_time(row[6]),
        claimed_by=row[7] if is_claimed else None,
        instance=row[8] if is_claimed else "",
        fencing_token=row[9] if is_claimed else None,
        expires_at=decode_time(row[10]) if is_claimed else None,
        result=decode_json(row[17]),
        finished_by=row[11] if is_finished else None,
        finished_at=decode_optional_time(row[12]) if is_finished else None,
    )


def to_task_link(row: Row, now: datetime) -> TaskLink:
    """Return the link of a row: id, title, state, claimed_by, expires_at."""
    state = see_task_state(row[2], row[4], now)
    is_claimed = state is TaskState.CLAIMED
    expires_at = decode_optional_time(row[4])
    return TaskLink(
        row[0], row[1], state, row[3] if is_claimed else None, expires_at if is_claimed else None
    )


def see_task_state(stored: str, expires_at: int | None, now: datetime) -> TaskState:
    """Return the state at `now`: a claim that has run out is ready."""
    if stored == TaskState.CLAIMED and (expires_at is None or expires_at <= encode_time(now)):
        return TaskState.READY
    return TaskState(stored)


AGENT = "agents.agent_id, agents.agent_type, agents.first_seen, agents.last_seen"


def to_agent(row: Row) -> Agent:
    return Agent(
        agent_id=row[0],
        agent_type=row[1],
        first_seen=decode_time(row[2]),
        last_seen=decode_time(row[3]),
    )


INSTANCE = """
    i.agent_id, i.instance, i.last_seen, i.last_action, i.state, i.status, i.since, i.waits_for,
    i.waits_session_id, i.waits_name, i.waits_since
"""


def to_instance(row: Row) -> Instance:
    waits_for = None
    if row[7] is not None:
        waits_for = Waiting(row[7], row[8] or None, row[9] or None)
    return Instance(
        agent_id=row[0],
        instance=row[1],
        last_seen=decode_time(row[2]),
        last_action=row[3],
        state=AgentState(row[4]) if row[4] else None,
        status=row[5],
        since=decode_optional_time(row[6]),
        waits_for=waits_for,
        waits_since=None if waits_for is None else decode_optional_time(row[10]),
    )


def from_instance_seen(seen: InstanceSeen) -> dict[str, Any]:
    """Return the columns of a call by their names."""
    waits_for = seen.waits_for
    return {
        "agent_id": seen.agent_id,
        "instance": seen.instance,
        "last_seen": encode_time(seen.last_seen),
        "last_action": seen.action,
        "waits_for": None if waits_for is None else waits_for.kind,
        "waits_session_id": "" if waits_for is None else waits_for.session_id or "",
        "waits_name": "" if waits_for is None else waits_for.name or "",
        "waits_since": None if waits_for is None else encode_optional_time(seen.waits_since),
        "session_id": seen.session_id or "",
    }


API_KEY = """
    id, agent_id, permissions, secret_hash, created_at, revoked_at, agent_type, binding, expires_at,
    last_used_at, label, replaced_by
"""
BOUND_BY_PATTERN = "pattern"
"""The column `binding` of a key for all agents whose ids match; NULL: for one agent."""


def to_api_key(row: Row) -> ApiKey:
    return ApiKey(
        id=row[0],
        agent_id=row[1],
        permissions=decode_permissions(row[2]),
        secret_hash=row[3],
        created_at=decode_time(row[4]),
        revoked_at=decode_optional_time(row[5]),
        agent_type=row[6],
        is_pattern=row[7] == BOUND_BY_PATTERN,
        expires_at=decode_optional_time(row[8]),
        last_used_at=decode_optional_time(row[9]),
        label=row[10],
        replaced_by=row[11],
    )


def from_api_key(key: ApiKey) -> dict[str, object]:
    """The columns of a key by name."""
    return {
        "id": key.id,
        "agent_id": key.agent_id,
        "permissions": encode_permissions(key.permissions),
        "secret_hash": key.secret_hash,
        "created_at": encode_time(key.created_at),
        "revoked_at": encode_optional_time(key.revoked_at),
        "agent_type": key.agent_type,
        "binding": BOUND_BY_PATTERN if key.is_pattern else None,
        "expires_at": encode_optional_time(key.expires_at),
        "last_used_at": encode_optional_time(key.last_used_at),
        "label": key.label,
        "replaced_by": key.replaced_by,
    }


CREDENTIAL = """
    id, agent_id, agent_type, permissions, key_id, handle_hash, issued_at, expires_at, revoked_at,
    origin_id
"""


def to_credential(row: Row) -> Credential:
    return Credential(
        id=row[0],
        agent_id=row[1],
        agent_type=row[2],
        permissions=decode_permissions(row[3]),
        key_id=row[4],
        handle_hash=row[5],
        issued_at=decode_time(row[6]),
        expires_at=decode_time(row[7]),
        revoked_at=decode_optional_time(row[8]),
        origin_id=row[9],
    )
