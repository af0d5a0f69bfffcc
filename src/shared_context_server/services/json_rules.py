"""What a JSON value from a caller, or one made of such values, must keep to before it is stored."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from pydantic import JsonValue

# JSON parsers stop at 200 levels, ours too: what is stored has to fit into the answers around it.
MAX_JSON_DEPTH = 100
# Of 64 bits, signed: what the readers of other languages and PostgreSQL's bigint hold.
MIN_JSON_INTEGER, MAX_JSON_INTEGER = -(2**63), 2**63 - 1

_MANY_DIGITS = re.compile(rb"\d{19}")  # as many as the largest integer has; most texts have none

_OVERLONG = object()


def find_fault(value: JsonValue, text: bytes) -> str | None:
    """What is wrong with the value, whose JSON is `text`, in words to follow its name; None if nothing."""
    if text.count(b"[") + text.count(b"{") > MAX_JSON_DEPTH and _depth(value) > MAX_JSON_DEPTH:
        return f"is nested deeper than {MAX_JSON_DEPTH} levels"
    if _MANY_DIGITS.search(text) and _has(is_large_integer, value):
        return "has an integer beyond 64 bits; send it as text"
    return None


def is_large_integer(value: JsonValue) -> bool:
    return isinstance(value, int) and not MIN_JSON_INTEGER <= value <= MAX_JSON_INTEGER


def _depth(value: JsonValue) -> int:
    """How many arrays and objects are around the innermost value."""
    depth, level = 0, [value]
    while level := [inner for inner in level if isinstance(inner, dict | list)]:
        depth += 1
        level = [part for inner in level for part in _parts(inner)]
    return depth


def find_name_of_overlong_integer(text: bytes) -> str | None:
    """The first member of a JSON object with an integer beyond 64 bits somewhere in it. For texts that
    a parser has refused: Python and pydantic read no integer of more than 4,300 digits at all."""

    def parse_integer(digits: str) -> object:
        return _OVERLONG if len(digits) > len(str(MIN_JSON_INTEGER)) else int(digits)

    try:
        parsed = json.loads(text, parse_int=parse_integer)
    except (ValueError, RecursionError):
        return None
    members = parsed.items() if isinstance(parsed, dict) else ()
    return next((n for n, value in members if _has(lambda part: part is _OVERLONG, value)), None)


def _has(is_sought: Callable[[Any], bool], value: Any) -> bool:
    """Whether it is true of the value, or of a value within it."""
    level = [value]
    while level:
        if any(is_sought(inner) for inner in level):
            return True
        level = [part for inner in level for part in _parts(inner)]
    return False


def _parts(value: JsonValue) -> list[JsonValue]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
