"""Reads texts and JSON values that are given as words of a command, in a file or on stdin."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared_context_server.cli.failures import CommandFailed
from shared_context_server.display import show_name
from shared_context_server.remote import exits

STANDARD_INPUT = "-"
MAX_BYTES = 1_048_576  # the largest request that a server accepts by default


def read_text(words: Sequence[str]) -> str:
    """The words of a command as one text; the only word - means stdin. Raises CommandFailed."""
    if list(words) == [STANDARD_INPUT]:
        return _decode(sys.stdin.buffer.read(MAX_BYTES + 1), "stdin")
    return " ".join(words)


def read_file(name: str) -> str:
    """The text of a file; - means stdin. Raises CommandFailed."""
    if name == STANDARD_INPUT:
        return read_text([name])
    try:
        with Path(name).open("rb") as file:
            return _decode(file.read(MAX_BYTES + 1), name)
    except OSError as exc:
        raise CommandFailed(
            f"{name} cannot be read: {exc.strerror}.", exit_code=exits.USAGE
        ) from exc


def read_json(text: str, option: str) -> Any:
    """A value that has to be JSON. Raises CommandFailed, naming the option."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise CommandFailed(f"{option} is not JSON: {exc}.", exit_code=exits.USAGE) from exc


def read_time(text: str, option: str) -> datetime:
    """A time in the format of RFC 3339 or ISO 8601; UTC without a zone. Raises CommandFailed, naming
    the option."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CommandFailed(
            f"{option}: {show_name(text)} is no time such as 2027-06-30T12:00:00Z.",
            exit_code=exits.USAGE,
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def read_object(text: str | None, option: str) -> dict[str, Any] | None:
    """A value that has to be a JSON object; None stays None. Raises CommandFailed."""
    if text is None:
        return None
    value = read_json(text, option)
    if not isinstance(value, dict):
        raise CommandFailed(
            f"{option} is not a JSON object.", 'Write it like {"name": "value"}.', exits.USAGE
        )
    return value


def _decode(data: bytes, name: str) -> str:
    if len(data) > MAX_BYTES:
        raise CommandFailed(f"{name} has more than {MAX_BYTES} bytes.", exit_code=exits.USAGE)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise CommandFailed(f"{name} is not UTF-8 text.", exit_code=exits.USAGE) from exc
