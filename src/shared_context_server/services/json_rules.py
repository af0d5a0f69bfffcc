"""Check JSON values against the limits of depth and integer size before they are stored."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from pydantic import JsonValue

# JSON parsers stop at 200 levels. Stored values have to fit into the answers around them.
MAX_JSON_DEPTH = 100
# Signed 64 bits: what other languages and PostgreSQL's bigint can hold.
MIN_JSON_INTEGER, MAX_JSON_INTEGER = -(2**63), 2**63 - 1

# An integer, not part of a fraction, with at least as many digits as the largest one allowed.
_MANY_DIGITS = re.compile(rb"(?<![\d.eE+-])-?\d{19,}+(?![.eE])")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

_OVERLONG = object()

TOO_DEEP = f"is nested deeper than {MAX_JSON_DEPTH} levels"
JSON_DEPTH = "json_depth"
"""The limit of depth, as the metric names it."""


def find_fault(text: bytes) -> str | None:
    """Return what is wrong with this JSON, as words that follow its name; None if nothing is.

    It searches the text, which is many times faster than walking through the value.
    """
    is_nested = text.count(b"[") + text.count(b"{") > MAX_JSON_DEPTH
    if not is_nested and not _MANY_DIGITS.search(text):
        return None
    bare = _STRING.sub(b"", text)
    if is_nested and _is_deep(bare):
        return TOO_DEEP
    if any(is_large_integer(_read_integer(digits)) for digits in _MANY_DIGITS.findall(bare)):
        return "has an integer beyond 64 bits; send it as text"
    return None


def is_large_integer(value: JsonValue) -> bool:
    return isinstance(value, int) and not MIN_JSON_INTEGER <= value <= MAX_JSON_INTEGER


def _is_deep(bare: bytes) -> bool:
    """Whether arrays and objects are nested deeper than MAX_JSON_DEPTH."""
    brackets = bare.translate(_SQUARE, _NO_BRACKETS)
    for _ in range(MAX_JSON_DEPTH):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")  # the innermost of each
    return bool(brackets)


def _read_integer(digits: bytes) -> int:
    return MAX_JSON_INTEGER + 1 if len(digits) > len(str(MIN_JSON_INTEGER)) else int(digits)


def find_name_of_overlong_integer(text: bytes) -> str | None:
    """Return the first member of a JSON object that contains an integer beyond 64 bits. For texts
    that a parser has refused: Python and pydantic read no integer of more than 4,300 digits."""

    def parse_integer(digits: str) -> object:
        return _OVERLONG if len(digits) > len(str(MIN_JSON_INTEGER)) else int(digits)

    try:
        parsed = json.loads(text, parse_int=parse_integer)
    except (ValueError, RecursionError):
        return None
    members = parsed.items() if isinstance(parsed, dict) else ()
    return next((n for n, value in members if _has(lambda part: part is _OVERLONG, value)), None)


def _has(is_sought: Callable[[Any], bool], value: Any) -> bool:
    """Whether the predicate holds for the value or for any value within it."""
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
