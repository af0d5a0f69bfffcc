"""How many values a JSON text has, counted without parsing it.

What reading JSON costs goes by its values more than by its bytes: a text of 1 MiB holds 350,000 empty
arrays or 500,000 digits, and parsing and checking each takes microseconds in which nobody else is
served.
"""

from __future__ import annotations

from typing import Any

MAX_VALUES = 50_000  # in one text; parsing so many takes some 20 ms
# Around a tool's arguments: the SDK's models read these, at some 20 µs for each one that is wrong.
MAX_ENVELOPE_VALUES = 2_000


def has_too_many_values(text: bytes, count: int | None = None) -> bool:
    """Whether the text has more than MAX_VALUES values, those within others counted too. Of what is
    no JSON it says how many a parser may meet before it stops. `count`: as `count_values` says."""
    if (count_values(text) if count is None else count) <= MAX_VALUES:
        return False
    bare = text.replace(rb"\\", b"").replace(rb"\"", b"")
    if bare.count(b'"') > 4 * MAX_VALUES:  # each has at most two texts: itself and its name
        return True
    return count_values(b"".join(bare.split(b'"')[::2])) > MAX_VALUES


def count_values(text: bytes) -> int:
    """How many values there are at most, the outermost aside: the signs that stand before values are
    counted, those in texts too."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def is_envelope_too_large(message: dict[str, Any]) -> bool:
    """Whether a JSON-RPC message has more than MAX_ENVELOPE_VALUES values beside those of the
    arguments in a tools/call."""
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
