"""Results that are already JSON: messages written as JSON directly from rows.

An answer may have a thousand messages. Making records, then models, then JSON of them costs many
times what writing the text costs. `MessageItem` still defines the shape: a test compares what is
written here with its JSON.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from pydantic_core import to_json

from shared_context_server.models import Message
from shared_context_server.storage.codec import Row
from shared_context_server.storage.stored_messages import rows_of
from shared_context_server.tools.arguments import Result

R = TypeVar("R", bound=Result)

_NO_MESSAGES = b'"messages":[]'
_SECOND_US = 1_000_000
_MAX_REMEMBERED = 1024  # names and seconds, which are often the same within a page


@dataclass(frozen=True, slots=True)
class Written(Generic[R]):
    """A result R as JSON."""

    json: bytes


def write_json(body: BaseModel | Written[Any] | dict[str, Any]) -> bytes:
    """Return the body of an answer as JSON."""
    return body.json if isinstance(body, Written) else to_json(body)


def write_result(result: R, messages: Iterable[Message]) -> Written[R]:
    """Return the result with these messages. Its own list `messages` has to be empty, and no field
    after it may contain a caller's text."""
    head, _, tail = to_json(result).rpartition(_NO_MESSAGES)
    return Written(b'%b"messages":[%b]%b' % (head, write_messages(messages), tail))


def write_messages(messages: Iterable[Message]) -> bytes:
    """Return the messages as the elements of a JSON array."""
    return ",".join([_write_row(row) for row in rows_of(messages)]).encode()


def _write_row(row: Row) -> str:
    (
        message_id,
        session_id,
        seq,
        sender,
        sender_type,
        content,
        visibility,
        recipients,
        metadata,
        parent_id,
        created_at_us,
        instance,
        ack,
    ) = row
    shown_instance = f',"sender_instance":{_quote(instance)}' if instance else ""
    shown_ack = ',"requires_ack":true' if ack == "required" else ""
    second, microsecond = divmod(created_at_us, _SECOND_US)
    return (
        f'{{"id":{message_id},"session_id":{_quote(session_id)},"seq":{seq},'
        f'"sender":{_quote(sender)},"sender_type":{_quote(sender_type)},'
        f'"content":{to_json(content).decode()},"visibility":"{visibility}",'
        f'"recipients":{recipients},"metadata":{metadata},'
        f'"parent_message_id":{"null" if parent_id is None else parent_id},'
        f'"timestamp":"{_write_second(second)}.{microsecond:06d}Z"{shown_instance}{shown_ack}}}'
    )


@lru_cache(_MAX_REMEMBERED)
def _quote(name: str) -> str:
    return to_json(name).decode()


@lru_cache(_MAX_REMEMBERED)
def _write_second(epoch_s: int) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).replace(tzinfo=None).isoformat()
