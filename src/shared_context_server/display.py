r"""Escapes names and texts of callers for display as plain text.

A line break in such a text must not start a line that looks like another sender's. Invisible
characters, and those that change the direction of the text or steer a terminal, are shown as escapes
such as \u202e.
"""

from __future__ import annotations

import json
import re
import unicodedata

QUOTE = "  | "
"""Prefix of each line after the first, so that it does not look like a line of the server."""

_NAME_SIGNS = frozenset("_-.@/+~= ")
# Control characters except the tab, and direction marks. Joiners stay: some languages need them.
_UNSAFE = re.compile(
    r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)


def _escape(char: str) -> str:
    return json.dumps(char)[1:-1] if ord(char) != 0x7F else r"\u007f"


_ESCAPES = {code: _escape(chr(code)) for code in range(0x10000) if _UNSAFE.match(chr(code))}


def show_name(name: str) -> str:
    """A name on one line. If it has other characters than letters, digits and the signs of ids, it is
    quoted, and invisible characters are escaped."""
    if all(char in _NAME_SIGNS or _is_word_character(char) for char in name) and name.strip():
        return name
    return show_quoted(name)


def show_quoted(name: str) -> str:
    """A name as a JSON string in which all invisible characters are escaped."""
    quoted = json.dumps(name, ensure_ascii=False)
    return "".join(char if char.isprintable() else _escape(char) for char in quoted)


def _is_word_character(char: str) -> bool:
    return char.isalnum() or unicodedata.category(char) in ("Mn", "Mc")


def show_line(text: str) -> str:
    """A text on one line: line breaks and repeated spaces become one space."""
    return _escape_unsafe(" ".join(text.split()))


def show_single_line(text: str) -> str:
    """A text on one line in which a line break is shown as ⏎."""
    return _escape_unsafe(" ⏎ ".join(text.splitlines()))


def show_text(text: str) -> str:
    """A text of several lines. Each line after the first begins with QUOTE."""
    lines = (_escape_unsafe(line) for line in text.splitlines() or [""])
    return f"\n{QUOTE}".join(lines)


def show_printable(text: str) -> str:
    """A text for a terminal: line breaks stay, control sequences are escaped."""
    return "\n".join(_escape_unsafe(line) for line in text.split("\n"))


def _escape_unsafe(text: str) -> str:
    return text.translate(_ESCAPES) if _UNSAFE.search(text) else text
