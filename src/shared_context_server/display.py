r"""How what callers have written is shown in plain text, so that it cannot pass for anything else.

Names and contents are other people's. A line break in them must not begin a line that looks like
another sender's, and what cannot be seen, or turns the direction of writing or the colours of a
terminal, is shown as an escape such as \u202e.
"""

from __future__ import annotations

import json
import re
import unicodedata

QUOTE = "  | "
"""Stands before each further line of a text, which so never looks like a line of ours."""

_NAME_SIGNS = frozenset("_-.@/+~= ")
# Controls but for the tab, and what sets the direction of writing. Joiners stay: they are spelling.
_UNSAFE = re.compile(
    r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)


def _escape(char: str) -> str:
    return json.dumps(char)[1:-1] if ord(char) != 0x7F else r"\u007f"


_ESCAPES = {code: _escape(chr(code)) for code in range(0x10000) if _UNSAFE.match(chr(code))}


def show_name(name: str) -> str:
    """A name on one line: as it is if it is made of letters, digits and the signs of ids, else in
    quotes, with an escape for each character that cannot be seen."""
    if all(char in _NAME_SIGNS or _is_word_character(char) for char in name) and name.strip():
        return name
    return show_quoted(name)


def show_quoted(name: str) -> str:
    """A name in quotes, as a JSON text in which everything that cannot be seen is escaped."""
    quoted = json.dumps(name, ensure_ascii=False)
    return "".join(char if char.isprintable() else _escape(char) for char in quoted)


def _is_word_character(char: str) -> bool:
    return char.isalnum() or unicodedata.category(char) in ("Mn", "Mc")


def show_line(text: str) -> str:
    """A text on one line: line breaks and runs of spaces become a space."""
    return _escape_unsafe(" ".join(text.split()))


def show_text(text: str) -> str:
    """A text of any number of lines, the further ones behind QUOTE."""
    lines = (_escape_unsafe(line) for line in text.splitlines() or [""])
    return f"\n{QUOTE}".join(lines)


def show_printable(text: str) -> str:
    """A text for a terminal: its line breaks stay, anything that could steer the terminal does not."""
    return "\n".join(_escape_unsafe(line) for line in text.split("\n"))


def _escape_unsafe(text: str) -> str:
    return text.translate(_ESCAPES) if _UNSAFE.search(text) else text
