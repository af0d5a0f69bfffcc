"""Checks and cleans agent names from headers and clients.

New names must follow the IdentifierClass of PRECIS (RFC 8264), and may have inner spaces. So no
character is invisible, changes the direction of the text, or is a compatibility form of another one.
"""

from __future__ import annotations

import re
import unicodedata

from pydantic import TypeAdapter, ValidationError

from shared_context_server.errors import InvalidArgument
from shared_context_server.models import MAX_AGENT_ID_CHARS, AgentId

_AGENT_ID: TypeAdapter[str] = TypeAdapter(AgentId)

_UNSEEN_CATEGORIES = {
    "Cc": "a control character",
    "Cf": "a format character",
    "Cn": "an unassigned character",
    "Co": "a private-use character",
    "Cs": "a surrogate",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
}
# Invisible characters of other categories: Default_Ignorable_Code_Point in Unicode's
# DerivedCoreProperties.txt, and the empty Braille pattern.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)


def check_agent_name(name: str, field: str) -> InvalidArgument | None:
    """The error if `name` may not be the id or type of a new agent, naming `field`; else None."""
    wrong = check_name_form(name, field)
    if wrong is not None:
        return wrong
    reason = _find_misleading(name)
    if reason is None:
        return None
    return InvalidArgument(
        f"{field}: {reason}.",
        field=field,
        suggestion="Use visible letters, digits, spaces and punctuation.",
    )


def check_name_form(name: str, field: str) -> InvalidArgument | None:
    """The error if not even an existing agent may have this name; else None."""
    try:
        _AGENT_ID.validate_python(name, strict=True)
    except ValidationError as exc:
        reason = exc.errors(include_url=False, include_input=False)[0]["msg"]
        return InvalidArgument(f"{field}: {reason}.", field=field)
    return None


def _find_misleading(name: str) -> str | None:
    """Why `name` could be confused with another name; None if it cannot."""
    if name.isascii():
        return None
    for char in name:
        category = unicodedata.category(char)
        kind = _UNSEEN_CATEGORIES.get(category)
        if kind is None and _INVISIBLE.match(char):
            kind = "an invisible character"
        if category == "Zs" and char != " ":
            kind = "a space other than U+0020"
        if kind is not None:
            return f"must not have {kind} (U+{ord(char):04X})"
    if not unicodedata.is_normalized("NFC", name):
        return "must be in Unicode normalization form C"
    for char in name:
        if not unicodedata.is_normalized("NFKC", char):
            return f"must not have a compatibility form of other characters (U+{ord(char):04X})"
    if not unicodedata.is_normalized("NFKC", name):
        return "must not have compatibility forms of other characters"
    return None


def clean_agent_name(name: str) -> str | None:
    """The most similar acceptable name; None if nothing is left."""
    normal = unicodedata.normalize("NFKC", _INVISIBLE.sub("", name))
    seen = "".join(" " if _is_unseen(char) else char for char in normal)
    # Again: a removed character may have separated two characters that compose.
    composed = unicodedata.normalize("NFKC", " ".join(seen.split()))
    cleaned = composed[:MAX_AGENT_ID_CHARS].rstrip()
    is_acceptable = cleaned and check_agent_name(cleaned, "name") is None
    return cleaned if is_acceptable else None


def _is_unseen(char: str) -> bool:
    return unicodedata.category(char) in _UNSEEN_CATEGORIES or bool(_INVISIBLE.match(char))
