"""Encode and decode the opaque cursors of listings: a JSON array in URL-safe base64."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

from pydantic import JsonValue
from pydantic_core import from_json, to_json

from shared_context_server.errors import InvalidArgument

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def encode_cursor(*parts: str | int) -> str:
    """Return a cursor that `decode_cursor` can read."""
    return base64.urlsafe_b64encode(to_json(parts)).decode().rstrip("=")


def decode_cursor(cursor: str, *kinds: type[str] | type[int]) -> list[JsonValue]:
    """Return the parts of a cursor, which must have the given types in order. Raises
    InvalidArgument."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        parts = from_json(base64.b64decode(padded, altchars=b"-_", validate=True))
    except ValueError as exc:
        raise _not_ours() from exc
    if not isinstance(parts, list) or [type(part) for part in parts] != list(kinds):
        raise _not_ours()
    if any(isinstance(part, str) and "\0" in part for part in parts):
        raise _not_ours()  # no name contains it, and PostgreSQL cannot compare with it
    return parts


def decode_moment(cursor: str) -> tuple[datetime, str]:
    """Return the time and the id of a cursor of those two. Raises InvalidArgument."""
    moment, name = decode_cursor(cursor, int, str)
    return from_microseconds(int(str(moment))), str(name)


def to_microseconds(moment: datetime) -> int:
    """Return exact microseconds since the Unix epoch."""
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    """Return the time. Raises InvalidArgument if it is outside the calendar."""
    try:
        return _EPOCH + value * _MICROSECOND
    except OverflowError as exc:
        raise _not_ours() from exc


def _not_ours() -> InvalidArgument:
    return InvalidArgument(
        "cursor is not one that this server gave.",
        field="cursor",
        suggestion="Pass next_cursor of the previous page unchanged, or leave cursor out.",
    )
