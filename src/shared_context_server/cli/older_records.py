"""Convert rows of the older shared-context server (PyPI, versions 0.x and 1.x) to rows of this one.

Each value has to satisfy the rules that this server has for callers. What does not is left out, and said
so: a row as a whole (`NotTaken`), metadata and purposes in part (`notes`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from shared_context_server.models import (
    Access,
    AgentId,
    JsonObject,
    MemoryScope,
    SessionStatus,
    Visibility,
)
from shared_context_server.storage.codec import (
    MAX_INTEGER,
    Row,
    decode_json_exactly,
    encode_json,
    encode_time,
    spell_time,
)
from shared_context_server.storage.transfer.copying import RecordRefused
from shared_context_server.storage.transfer.lines import NUL, to_row
from shared_context_server.storage.transfer.records import (
    AUDIT,
    MEMORY,
    MESSAGE,
    SESSION,
    RecordKind,
)
from shared_context_server.tools.arguments import (
    Content,
    JsonArgument,
    MemoryKey,
    MessageId,
    Metadata,
    SessionId,
    TimeArgument,
)
from shared_context_server.tools.sessions import MAX_PURPOSE_CHARS

DEFAULT_AGENT_TYPE = "generic"
DEFAULT_MESSAGE_TYPE = (
    "agent_response"  # every message of the older server has one; this says nothing
)

_AGENT_ID: TypeAdapter[str] = TypeAdapter(AgentId)
_SESSION_ID: TypeAdapter[str] = TypeAdapter(SessionId)
_MEMORY_KEY: TypeAdapter[str] = TypeAdapter(MemoryKey)
_EVENT_TYPE: TypeAdapter[str] = TypeAdapter(Annotated[str, Field(min_length=1, max_length=64)])
_CONTENT: TypeAdapter[str] = TypeAdapter(Content)
_MESSAGE_ID: TypeAdapter[int] = TypeAdapter(MessageId)
_TIME: TypeAdapter[datetime] = TypeAdapter(TimeArgument)
_METADATA: TypeAdapter[JsonObject] = TypeAdapter(Metadata)
_VALUE: TypeAdapter[Any] = TypeAdapter(JsonArgument)

Note = Callable[[str], None]
"""Receives what was changed in a row that is taken."""


class NotTaken(Exception):
    """The row cannot be a record of this server. The text says why, without values of the row."""


def to_session(row: sqlite3.Row, note: Note) -> Row:
    is_active = row["is_active"]
    purpose = _text(row, "purpose")
    if not purpose:
        raise NotTaken("the purpose is empty")
    if len(purpose) > MAX_PURPOSE_CHARS:
        note(f"the purpose was cut after {MAX_PURPOSE_CHARS} characters")
        purpose = purpose[:MAX_PURPOSE_CHARS]
    is_closed = is_active is not None and not is_active
    return _to_row(
        SESSION,
        {
            "id": _name(_SESSION_ID, row, "id"),
            "purpose": purpose,
            "access": Access.OPEN.value,
            "status": (SessionStatus.CLOSED if is_closed else SessionStatus.ACTIVE).value,
            "created_by": _name(_AGENT_ID, row, "created_by"),
            "created_at": _time(row, "created_at"),
            "closed_at": _time(row, "updated_at") if is_closed else None,
            "invited": [],
            "metadata": _metadata(row, note),
        },
    )


def to_message(row: sqlite3.Row, seq: int, note: Note, *, has_parent: bool) -> Row:
    """`has_parent`: the parent that the row names is a message of the same session, before it."""
    if row["parent_message_id"] is not None and not has_parent:
        note("the message that it replies to is not in its session")
    metadata = _metadata(row, note)
    message_type = row["message_type"]
    if message_type not in (None, DEFAULT_MESSAGE_TYPE):
        metadata.setdefault("message_type", str(message_type))
    sender_type = row["sender_type"]
    return _to_row(
        MESSAGE,
        {
            "id": row["id"],
            "session_id": row["session_id"],
            "seq": seq,
            "sender": _name(_AGENT_ID, row, "sender"),
            "sender_type": DEFAULT_AGENT_TYPE
            if sender_type is None
            else _name(_AGENT_ID, row, "sender_type"),
            "visibility": _visibility(row),
            "created_at": _time(row, "timestamp"),
            "parent_message_id": row["parent_message_id"] if has_parent else None,
            "recipients": [],
            "metadata": metadata,
            "content": _check(_CONTENT, row["content"], "the content is empty or too long"),
        },
    )


def to_memory(row: sqlite3.Row, note: Note) -> Row:
    """An entry of an agent's own memory, in a session or, with an empty `session_id`, in none."""
    owner = _name(_AGENT_ID, row, "agent_id")
    value = _check(_VALUE, _memory_value(row), "the value is too large or too deep")
    return _to_row(
        MEMORY,
        {
            "session_id": row["session_id"] or None,
            "owner": owner,
            "key": _name(_MEMORY_KEY, row, "key"),
            "version": 1,
            "created_at": _time(row, "created_at"),
            "updated_at": _time(row, "updated_at"),
            "updated_by": owner,
            "expires_at": None if row["expires_at"] is None else _time(row, "expires_at"),
            "size_bytes": len(encode_json(value).encode()),
            "metadata": _metadata(row, note),
            "value": value,
        },
    )


def to_audit(row: sqlite3.Row, note: Note) -> Row:
    details = _metadata(row, note)
    for name in ("resource", "action", "result"):
        if row[name] is not None:
            details.setdefault(name, str(row[name]))
    if "key" in details:
        # All memory of the older server is private: not even admins are shown its keys.
        details["scope"] = MemoryScope.PRIVATE.value
    session_id = row["session_id"]
    return _to_row(
        AUDIT,
        {
            "id": _check(_MESSAGE_ID, row["id"], "the id is not a positive integer"),
            "created_at": _time(row, "timestamp"),
            "event_type": _name(_EVENT_TYPE, row, "event_type"),
            "agent_id": _name(_AGENT_ID, row, "agent_id"),
            "session_id": None if session_id is None else _name(_SESSION_ID, row, "session_id"),
            "details": details,
        },
    )


def is_message_id(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_INTEGER


def _to_row(kind: RecordKind, record: JsonObject) -> Row:
    try:
        return to_row(kind, record)
    except RecordRefused as exc:
        raise NotTaken(str(exc)) from exc


def _check(adapter: TypeAdapter[Any], value: Any, reason: str) -> Any:
    try:
        return adapter.validate_python(value)
    except (ValueError, RecursionError) as exc:
        raise NotTaken(reason) from exc


def _text(row: sqlite3.Row, column: str) -> str:
    value = row[column]
    if not isinstance(value, str):
        raise NotTaken(f"{column} is not text")
    return value


def _name(adapter: TypeAdapter[str], row: sqlite3.Row, column: str) -> str:
    value = _text(row, column)
    if NUL in value:  # PostgreSQL cannot store it
        raise NotTaken(f"{column} is not a valid name")
    name: str = _check(adapter, value, f"{column} is not a valid name")
    return name


def _visibility(row: sqlite3.Row) -> str:
    try:
        return Visibility(row["visibility"]).value
    except ValueError as exc:
        raise NotTaken("its visibility is unknown") from exc


def _time(row: sqlite3.Row, column: str) -> str:
    """The older server wrote seconds since 1970, ISO 8601, or SQLite's CURRENT_TIMESTAMP: all in UTC."""
    at = _check(_TIME, row[column], f"{column} is not a time")
    return spell_time(encode_time(at))


def _metadata(row: sqlite3.Row, note: Note) -> dict[str, Any]:
    text = row["metadata"]
    if text is None:
        return {}
    try:
        metadata: dict[str, Any] = _METADATA.validate_python(decode_json_exactly(text))
    except (ValueError, TypeError, RecursionError):
        note("its metadata was left out: too large, or not a JSON object")
        return {}
    return metadata


def _memory_value(row: sqlite3.Row) -> Any:
    """The older server stored texts as they are and everything else as JSON, and read both as JSON if
    possible."""
    text = _text(row, "value")
    try:
        return decode_json_exactly(text)
    except (ValueError, RecursionError):
        return text
