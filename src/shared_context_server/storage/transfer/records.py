"""The kinds of records that are exported, imported and copied, and the encoding of their fields.

Tables and columns have the same names in every backend. A row is a tuple of a kind's columns as
they are stored: times in whole microseconds since 1970, JSON as text, booleans as booleans, '' for
no session and no owner. A record is the JSON object of the same fields, as in a dump.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from shared_context_server.models import (
    Access,
    Ack,
    Permission,
    SessionStatus,
    TaskState,
    Visibility,
)
from shared_context_server.storage.codec import (
    MAX_INTEGER,
    Row,
    decode_json,
    decode_json_exactly,
    decode_permissions,
    encode_json,
    encode_permissions,
    parse_time,
    spell_time,
)

Key = tuple[Any, ...]
"""The columns that identify a row of its kind, as they are stored. Python orders keys as every
backend has to: numbers by value, text by code point, which is the order of its UTF-8 bytes."""


@dataclass(frozen=True, slots=True)
class Codec:
    """Converts a field of a record to its column and back. `to_column` raises ValueError for a
    value that is not allowed."""

    to_column: Callable[[Any], Any]
    to_field: Callable[[Any], Any]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RecordKind:
    """A table that is copied.

    `condition`: SQL, for any backend, that selects its rows, without those of sessions that are
    being deleted. `mutable`: the columns that a store changes in an existing row; a repeated copy
    refuses a change of any other (see succession.py). `free_text`: columns that contain no names,
    so that a character may be replaced. `later_fields`: fields that dumps of older versions lack;
    they may be null, and a line leaves them out then.
    """

    name: str
    table: str
    key: tuple[str, ...]
    fields: Mapping[str, Codec]
    condition: str = "TRUE"
    mutable: frozenset[str] = frozenset()
    free_text: frozenset[str] = frozenset()
    later_fields: frozenset[str] = frozenset()
    columns: tuple[str, ...] = field(init=False)
    _key_positions: tuple[int, ...] = field(init=False)

    def __repr__(self) -> str:
        return self.name

    def __post_init__(self) -> None:
        columns = tuple(self.fields)
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "_key_positions", tuple(columns.index(name) for name in self.key))

    def key_of(self, row: Row) -> Key:
        return tuple(row[position] for position in self._key_positions)

    def describe(self, row: Row) -> str:
        """Return the row's name, for a message."""
        named = zip(self.key, self.key_of(row), strict=True)
        return f"{self.name} " + ", ".join(f"{name}={value!r}" for name, value in named)


def _same(value: Any) -> Any:
    return value


def _require_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value


def _require_integer(value: Any) -> int:
    if type(value) is not int or abs(value) > MAX_INTEGER:
        raise ValueError("must be an integer of 64 bits")
    return value


def _require_boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("must be true or false")
    return value


def _require_name_or_null(value: Any) -> str:
    if value == "":
        raise ValueError("must not be empty")
    return "" if value is None else _require_text(value)


def _parse_time(value: Any) -> int:
    return parse_time(_require_text(value))


def _parse_permissions(value: Any) -> str:
    return encode_permissions(frozenset(Permission(word) for word in value))


def _spell_permissions(words: str) -> list[str]:
    return sorted(decode_permissions(words))


def _parse_texts(value: Any) -> str:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a list of texts")
    if any("\0" in item for item in value):
        # It could be stored as JSON, but PostgreSQL could not compare it with a name.
        raise ValueError("must not contain U+0000")
    return encode_json(value)


def _parse_ids(value: Any) -> str:
    if not isinstance(value, list):
        raise ValueError("must be a list of integers")
    if len(set(value)) < len(value):
        raise ValueError("must not repeat an integer")
    return encode_json([_require_integer(item) for item in value])


def _parse_object(value: Any) -> str:
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    return encode_json(value)


def _or_null(codec: Codec) -> Codec:
    def to_column(value: Any) -> Any:
        return None if value is None else codec.to_column(value)

    def to_field(value: Any) -> Any:
        return None if value is None else codec.to_field(value)

    return Codec(to_column, to_field)


def _one_of(choices: type[StrEnum]) -> Codec:
    return Codec(lambda value: choices(value).value, _same)


def _absent_if(usual: int) -> Codec:
    """An integer that is `usual` in most rows, for which the field is null."""
    return Codec(
        lambda value: usual if value is None else _require_integer(value),
        lambda number: None if number == usual else number,
    )


_TEXT = Codec(_require_text, _same)
_INTEGER = Codec(_require_integer, _same)
_BOOLEAN = Codec(_require_boolean, bool)
_TIME = Codec(_parse_time, spell_time)
_TEXT_OR_EMPTY = Codec(_require_name_or_null, lambda text: text or None)
_PERMISSIONS = Codec(_parse_permissions, _spell_permissions)
_TEXTS = Codec(_parse_texts, decode_json)
_IDS = Codec(_parse_ids, decode_json)
_OBJECT = Codec(_parse_object, decode_json)
_ACK = Codec(lambda value: Ack(value or "").value, lambda text: text or None)
_PATHS = Codec(
    lambda value: "[]" if value is None else _parse_texts(value),
    lambda text: decode_json(text) or None,
)
_JSON = Codec(encode_json, decode_json_exactly)

_NOT_DELETING = "session_id NOT IN (SELECT id FROM sessions WHERE status = 'deleting')"

SESSION = RecordKind(
    "session",
    "sessions",
    ("id",),
    {
        "id": _TEXT,
        "purpose": _TEXT,
        "access": _one_of(Access),
        "status": _one_of(SessionStatus),
        "created_by": _TEXT,
        "created_at": _TIME,
        "closed_at": _or_null(_TIME),
        "invited": _TEXTS,
        "metadata": _OBJECT,
        "first_seq": _absent_if(1),
        "expired_up_to": _absent_if(0),
        "removed_id": _absent_if(0),
        "removed_at": _or_null(_TIME),
    },
    condition="status <> 'deleting'",
    free_text=frozenset({"purpose"}),
    later_fields=frozenset({"first_seq", "expired_up_to", "removed_id", "removed_at"}),
    mutable=frozenset(
        {"status", "closed_at", "first_seq", "expired_up_to", "removed_id", "removed_at"}
    ),
)
MESSAGE = RecordKind(
    "message",
    "messages",
    ("id",),
    {
        "id": _INTEGER,
        "session_id": _TEXT,
        "seq": _INTEGER,
        "sender": _TEXT,
        "sender_type": _TEXT,
        "visibility": _one_of(Visibility),
        "created_at": _TIME,
        "parent_message_id": _or_null(_INTEGER),
        "recipients": _TEXTS,
        "metadata": _OBJECT,
        "content": _TEXT,
        "sender_instance": _TEXT_OR_EMPTY,
        "ack": _ACK,
    },
    condition=_NOT_DELETING,
    free_text=frozenset({"content"}),
    later_fields=frozenset({"sender_instance", "ack"}),
)
CURSOR = RecordKind(
    "cursor",
    "cursors",
    ("session_id", "agent_id"),
    {"session_id": _TEXT, "agent_id": _TEXT, "seq": _INTEGER},
    condition=_NOT_DELETING,
    mutable=frozenset({"seq"}),
)
MEMORY = RecordKind(
    "memory",
    "memory",
    ("session_id", "owner", "key"),
    {
        "session_id": _TEXT_OR_EMPTY,
        "owner": _TEXT_OR_EMPTY,
        "key": _TEXT,
        "version": _INTEGER,
        "created_at": _TIME,
        "updated_at": _TIME,
        "updated_by": _TEXT,
        "expires_at": _or_null(_TIME),
        "size_bytes": _INTEGER,
        "metadata": _OBJECT,
        "value": _JSON,
    },
    condition=_NOT_DELETING,
    mutable=frozenset(
        {
            "version",
            "created_at",
            "updated_at",
            "updated_by",
            "expires_at",
            "size_bytes",
            "metadata",
            "value",
        }
    ),
)
IDEMPOTENCY = RecordKind(
    "idempotency",
    "idempotency",
    ("session_id", "agent_id", "key"),
    {
        "session_id": _TEXT_OR_EMPTY,
        "agent_id": _TEXT,
        "key": _TEXT,
        "kind": _TEXT,
        "fingerprint": _TEXT,
        "answer": _OBJECT,
        "created_at": _TIME,
    },
    condition=_NOT_DELETING,
    mutable=frozenset({"kind", "fingerprint", "answer", "created_at"}),
)
LEASE = RecordKind(
    "lease",
    "leases",
    ("session_id", "name"),
    {
        "session_id": _TEXT_OR_EMPTY,
        "name": _TEXT,
        "holder": _or_null(_TEXT),
        "fencing_token": _INTEGER,
        "acquired_at": _TIME,
        "expires_at": _TIME,
        "instance": _TEXT_OR_EMPTY,
        "paths": _PATHS,
    },
    condition=_NOT_DELETING,
    later_fields=frozenset({"instance", "paths"}),
    mutable=frozenset(
        {"holder", "fencing_token", "acquired_at", "expires_at", "instance", "paths"}
    ),
)
TASK = RecordKind(
    "task",
    "tasks",
    ("session_id", "id"),
    {
        "session_id": _TEXT,
        "id": _INTEGER,
        "version": _INTEGER,
        "state": _one_of(TaskState),
        "priority": _INTEGER,
        "assignee": _TEXT_OR_EMPTY,
        "waiting_for": _INTEGER,
        "created_by": _TEXT,
        "created_at": _TIME,
        "claimed_by": _or_null(_TEXT),
        "instance": _TEXT_OR_EMPTY,
        "fencing_token": _or_null(_INTEGER),
        "expires_at": _or_null(_TIME),
        "finished_by": _or_null(_TEXT),
        "finished_at": _or_null(_TIME),
        "depends_on": _IDS,
        "title": _TEXT,
        "metadata": _OBJECT,
        "body": _TEXT,
        "result": _JSON,
    },
    condition=_NOT_DELETING,
    free_text=frozenset({"title", "body"}),
    mutable=frozenset(
        {
            "version",
            "state",
            "waiting_for",
            "claimed_by",
            "instance",
            "fencing_token",
            "expires_at",
            "finished_by",
            "finished_at",
            "result",
        }
    ),
)
AGENT = RecordKind(
    "agent",
    "agents",
    ("agent_id",),
    {
        "agent_id": _TEXT,
        "agent_type": _TEXT,
        "first_seen": _TIME,
        "last_seen": _TIME,
        "is_around": _BOOLEAN,
    },
    mutable=frozenset({"agent_type", "last_seen", "is_around"}),
)
API_KEY = RecordKind(
    "api_key",
    "api_keys",
    ("id",),
    {
        "id": _TEXT,
        "agent_id": _TEXT,
        "permissions": _PERMISSIONS,
        "secret_hash": _TEXT,
        "created_at": _TIME,
        "revoked_at": _or_null(_TIME),
        "agent_type": _or_null(_TEXT),
        "binding": _or_null(_TEXT),
        "expires_at": _or_null(_TIME),
        "last_used_at": _or_null(_TIME),
        "label": _or_null(_TEXT),
        "replaced_by": _or_null(_TEXT),
    },
    later_fields=frozenset(
        {"agent_type", "binding", "expires_at", "last_used_at", "label", "replaced_by"}
    ),
    free_text=frozenset({"label"}),
    mutable=frozenset({"revoked_at", "expires_at", "last_used_at", "replaced_by"}),
)
CREDENTIAL = RecordKind(
    "credential",
    "credentials",
    ("id",),
    {
        "id": _TEXT,
        "agent_id": _TEXT,
        "agent_type": _TEXT,
        "permissions": _PERMISSIONS,
        "key_id": _TEXT,
        "handle_hash": _TEXT,
        "issued_at": _TIME,
        "expires_at": _TIME,
        "revoked_at": _or_null(_TIME),
        "origin_id": _or_null(_TEXT),
    },
    later_fields=frozenset({"origin_id"}),
    mutable=frozenset({"revoked_at"}),
)
AUDIT = RecordKind(
    "audit",
    "audit_log",
    ("id",),
    {
        "id": _INTEGER,
        "created_at": _TIME,
        "event_type": _TEXT,
        "agent_id": _TEXT,
        "session_id": _or_null(_TEXT),
        "details": _OBJECT,
        "hash": _TEXT_OR_EMPTY,
    },
    later_fields=frozenset({"hash"}),
    mutable=frozenset({"hash"}),
)
AUDIT_CHAIN = RecordKind(
    "audit_chain",
    "audit_chain",
    ("id",),
    {
        "id": _INTEGER,
        "start_id": _INTEGER,
        "anchor_id": _INTEGER,
        "anchor_hash": _TEXT_OR_EMPTY,
        "head_id": _INTEGER,
        "head_hash": _TEXT_OR_EMPTY,
    },
    mutable=frozenset({"anchor_id", "anchor_hash", "head_id", "head_hash"}),
)
"""No row, or one; see AuditChain in storage/contract/audit.py."""
COUNTER = RecordKind(
    "counter",
    "counters",
    ("table",),
    {"table": _TEXT, "last_id": _INTEGER},
    mutable=frozenset({"last_id"}),
)
"""No table: the last id that was ever given out in each of NUMBERED_TABLES, 0 for none."""

NUMBERED_TABLES = ("audit_log", "messages")  # in the order of COUNTER's keys

KINDS = (
    SESSION,
    MESSAGE,
    CURSOR,
    MEMORY,
    IDEMPOTENCY,
    LEASE,
    TASK,
    AGENT,
    API_KEY,
    CREDENTIAL,
    AUDIT,
    AUDIT_CHAIN,
    COUNTER,
)
"""In the order in which they are written: what refers to something stands behind it."""

KINDS_BY_NAME = {kind.name: kind for kind in KINDS}
