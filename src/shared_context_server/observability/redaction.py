"""Removes credentials from log events."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from structlog.typing import EventDict

REDACTED = "[redacted]"
MAX_DEPTH = 8  # deeper values are logged as their repr, which is redacted as text

_NAME = (
    r"(?:api[_-]?key|token|secret(?:[_-]?key)?|passw(?:or)?d|authorization|agent[_-]?handle"
    r"|cookie|credentials?|mcp[_-]session[_-]id)"
)
_SENSITIVE_KEY = re.compile(_NAME + "$", re.IGNORECASE)
_SCHEME = re.compile(r"\b(bearer|basic)(\s+)[^\s\"',;\\]+", re.IGNORECASE)
_HEADER = re.compile(r"(authorization\s*[:=]\s*)[^\s\"'][^\r\n\"']*", re.IGNORECASE)
# A sensitive name and its value: name=value, "name": "value", (b'name', b'value'), and the same inside
# an escaped string.
_ASSIGNED = re.compile(
    _NAME
    + r"""(?:\\*["']\s*[:=,]\s*|\s*[:=]\s*)"""
    + r"""(?P<value>b?"(?:[^"\\]|\\.)*"|b?'(?:[^'\\]|\\.)*'"""
    + r"""|b?(?P<quote>\\+["'])(?:(?!(?P=quote)).)*(?P=quote)"""
    + r"""|b?\\*["'][^\r\n]*|[^\s,;&"'<>]+)""",
    re.IGNORECASE | re.DOTALL,
)
_SHAPES = (
    re.compile(r"eyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){0,4}"),  # a JWT: {"… in base64
    re.compile(r"agt_[A-Za-z0-9_-]{8,}"),  # an agent handle: 22 characters after the prefix
    re.compile(
        r"scs_[A-Za-z0-9_-]{20,}"
    ),  # an API key: 43 characters; names of metrics are shorter
)
# Session ids in log lines of the MCP SDK: "session ID: …", "Terminating session: …", "Session … crashed",
# "request for session …: credential does not match". An id of the SDK has 32 hex digits. After "ID:" any
# text of a client may follow.
_MCP_SESSION = re.compile(
    r"(\bsession\b(?:\s+(?:for\s+|with\s+)?ID:\s*|:?\s+(?=[0-9a-f]{32}\b)))[^\s\"',;:\\]+",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"(://[^\s:/@]*:)[^\s@]+(?=@)")


class Redactor:
    """A structlog processor that removes credentials and converts all values to JSON values.

    It removes values with the name of a credential, texts that look like a credential of this server
    or a JWT, passwords in URLs, and the `known` secrets.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        spellings = {spelling for secret in known for spelling in _spellings(secret)}
        longest_first = sorted(filter(None, spellings), key=len, reverse=True)
        self._known = (
            re.compile("|".join(re.escape(spelling) for spelling in longest_first))
            if longest_first
            else None
        )

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        return {self.redact_text(str(name)): self._named(name, event[name], 0) for name in event}

    def redact_text(self, text: str) -> str:
        """The text with all credentials replaced."""
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        for shape in _SHAPES:
            text = shape.sub(REDACTED, text)
        text = _MCP_SESSION.sub(rf"\1{REDACTED}", text)
        text = _URL_PASSWORD.sub(rf"\1{REDACTED}", text)
        text = _SCHEME.sub(rf"\1\2{REDACTED}", text)
        text = _HEADER.sub(rf"\1{REDACTED}", text)
        return _ASSIGNED.sub(_hide_value, text)

    def _named(self, name: object, value: Any, depth: int) -> Any:
        if isinstance(name, bytes):
            name = name.decode("latin-1")
        if isinstance(name, str) and _SENSITIVE_KEY.search(name) and value is not None:
            return REDACTED
        return self._value(value, depth)

    def _value(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else repr(value)
        if isinstance(value, str):
            return self.redact_text(str(value))
        if depth < MAX_DEPTH:
            if isinstance(value, dict):
                return {
                    self.redact_text(_shown(name)): self._named(name, inner, depth + 1)
                    for name, inner in value.items()
                }
            if isinstance(value, tuple) and len(value) == 2:  # a header, perhaps
                return [self._value(value[0], depth + 1), self._named(*value, depth + 1)]
            if isinstance(value, list | tuple | set | frozenset):
                return [self._value(inner, depth + 1) for inner in value]
        return self.redact_text(_shown(value))


def _hide_value(found: re.Match[str]) -> str:
    start = found.start("value") - found.start()
    return found.group()[:start] + REDACTED


def _spellings(secret: str) -> tuple[str, ...]:
    """The forms of a secret in a text: itself, in a repr, in JSON, in a URL."""
    return secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe="")


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - any object may be logged, and its repr may raise anything
        return f"<{type(value).__name__} without a repr>"
