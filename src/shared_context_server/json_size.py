"""Counts the values of a JSON text without parsing it, to limit them.

The cost of parsing JSON depends more on its values than on its bytes. 1 MiB can contain 350,000 empty
arrays or 500,000 digits. Each takes microseconds to parse and to check, which block the event loop.
"""

from __future__ import annotations

from typing import Any

MAX_VALUES = 50_000  # in one text; parsing them takes about 20 ms
# Outside of a tool's arguments: the SDK validates these, which takes about 20 µs for each wrong value.
MAX_ENVELOPE_VALUES = 2_000


def has_too_many_values(text: bytes, count: int | None = None) -> bool:
    """Whether the text has more than MAX_VALUES values, including nested ones. For invalid JSON, whether
    a parser could find more before it stops. `count` is the result of `count_values`, if known."""
    if (count_values(text) if count is None else count) <= MAX_VALUES:
        return False
    bare = text.replace(rb"\\", b"").replace(rb"\"", b"")
    if bare.count(b'"') > 4 * MAX_VALUES:  # each has at most two strings: the value and its name
        return True
    return count_values(b"".join(bare.split(b'"')[::2])) > MAX_VALUES


def count_values(text: bytes) -> int:
    """An upper bound of the number of values, without the outermost one. It counts the characters that
    can come before a value, also inside strings."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def is_envelope_too_large(message: dict[str, Any]) -> bool:
    """Whether a JSON-RPC message has more than MAX_ENVELOPE_VALUES values, without the arguments of a
    tools/call."""
    params = message.get("params")
    arguments = None
    if message.get("method") == "tools/call" and isinstance(params, dict):
        arguments = params.get("arguments")
    count = 0
    level: list[Any] = [message]
    while level:
        value = level.pop()
        if isinstance(value, dict | list) and value is not arguments:
            count += len(value)
            if count > MAX_ENVELOPE_VALUES:
                return True
            level.extend(value.values() if isinstance(value, dict) else value)
    return False
