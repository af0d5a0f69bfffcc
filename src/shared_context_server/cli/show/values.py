"""Writes single values of answers as text for a terminal or a pipe.

Texts are written by agents. None of them reaches a terminal with control characters in it.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

from shared_context_server.display import show_name, show_printable, show_quoted, show_single_line

NOTHING = "-"
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400


def is_terminal() -> bool:
    return sys.stdout.isatty()


def show_cell(value: Any) -> str:
    """One value on one line, without tabs; NOTHING for none. What would look like nothing
    is quoted."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (dict, list)):
        value = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, str) and not any(c.isprintable() and not c.isspace() for c in value):
        return show_quoted(value)
    return show_single_line(str(value)).replace("\t", " ")


def show_agent(agent_id: str, instance: str = "") -> str:
    """An agent's name, with its thread behind a slash."""
    name = show_name(agent_id)
    return name if not instance else f"{name}/{show_name(instance)}"


def show_moment(text: str | None) -> str:
    """A time of an answer: local and short on a terminal, else as it is (RFC 3339, UTC)."""
    if text is None:
        return NOTHING
    if not is_terminal():
        return show_cell(text)
    moment = read_moment(text).astimezone()
    is_today = moment.date() == datetime.now().astimezone().date()
    return f"{moment:%H:%M:%S}" if is_today else f"{moment:%Y-%m-%d %H:%M}"


def show_age(text: str | None) -> str:
    """How long ago that was, on a terminal; else the time as it is."""
    if text is None:
        return NOTHING
    return f"{show_duration(seconds_since(text))} ago" if is_terminal() else show_cell(text)


def show_left(text: str | None) -> str:
    """How long it is until then, on a terminal; else the time as it is."""
    if text is None:
        return NOTHING
    return show_duration(-seconds_since(text)) if is_terminal() else show_cell(text)


def show_duration(seconds: float) -> str:
    """A length of time in its largest unit: 12s, 5m, 3h, 2d."""
    seconds = max(0, int(seconds))
    for unit_s, sign in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "m")):
        if seconds >= 2 * unit_s or (seconds >= unit_s and sign == "m"):
            return f"{seconds // unit_s}{sign}"
    return f"{seconds}s"


def read_moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def seconds_since(text: str) -> float:
    return (datetime.now(UTC) - read_moment(text)).total_seconds()


def print_json(document: Any, *, is_line: bool = False) -> None:
    """Print one JSON document, or one line of a stream of them, in which all control characters are
    escaped."""
    text = json.dumps(document, ensure_ascii=False, indent=None if is_line else 2)
    print(show_printable(text), flush=is_line)


def without_success(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer of a call as a document: that it has succeeded says the exit code."""
    return {name: value for name, value in answer.items() if name != "success"}


def note(text: str) -> None:
    """Tell the user on stderr."""
    print(f"shared-context-server: {show_printable(text)}", file=sys.stderr, flush=True)
