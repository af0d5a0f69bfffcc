"""Normalizes the path and the headers of a request, once for all layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

RawHeader = tuple[bytes, bytes]

# Optional whitespace, RFC 9110 section 5.5; httptools keeps it at the end of a value.
_SPACE = b" \t"
_SCOPE_KEY = "shared_context.head"
_MAX_LENGTH_DIGITS = 18  # larger than any limit; int() refuses thousands of digits
_NONE: frozenset[bytes] = frozenset()


@dataclass(slots=True)
class RequestHead:
    """`path` is relative to the app, without slashes at its end. `headers` have lower-case names and no
    spaces around their values. Values of a `repeated` header are joined by commas (RFC 9110 section
    5.3)."""

    path: str
    headers: dict[bytes, bytes]
    repeated: frozenset[bytes] = _NONE

    def find_text(self, name: bytes) -> str | None:
        """A header as text: UTF-8 if it is valid, else Latin-1."""
        value = self.headers.get(name)
        if value is None:
            return None
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("latin-1")

    @property
    def body_length(self) -> int:
        """The Content-Length in bytes; 0 without the header."""
        value = self.headers.get(b"content-length", b"")
        return int(value[:_MAX_LENGTH_DIGITS]) if value.isdigit() else 0

    @property
    def is_chunked(self) -> bool:
        """Whether the body has an unknown length."""
        return b"transfer-encoding" in self.headers


def head_of(scope: Scope) -> RequestHead:
    """The head of this HTTP request."""
    head: RequestHead | None = scope.get(_SCOPE_KEY)
    if head is None:
        head = scope[_SCOPE_KEY] = _read_head(scope)[0]
    return head


class HeadMiddleware:
    """Reads the head once. Removes one slash at the end of the path, because not all clients follow a
    redirect, and the spaces and tabs around header values."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = _read(scope)
        elif scope["type"] == "websocket":
            scope = {**scope, "headers": _trim(scope["headers"])}
        await self.app(scope, receive, send)


def _read(scope: Scope) -> Scope:
    """The normalized request, with its head."""
    path: str = scope["path"]
    if path.endswith("/") and path[:-1].removeprefix(scope.get("root_path", "")):
        raw_path = scope.get("raw_path") or path.encode()
        scope = {**scope, "path": path[:-1], "raw_path": raw_path.removesuffix(b"/")}
    head, is_trimmed = _read_head(scope)
    if not is_trimmed:
        scope = {**scope, "headers": _trim(scope["headers"])}
    scope[_SCOPE_KEY] = head
    return scope


def _read_head(scope: Scope) -> tuple[RequestHead, bool]:
    """The head, and whether the request's headers are already trimmed."""
    path: str = scope["path"]
    path = path.removeprefix(scope.get("root_path", "")).rstrip("/") or "/"
    headers: dict[bytes, bytes] = {}
    repeated = []
    is_trimmed = True
    for name, value in scope["headers"]:
        trimmed = value.strip(_SPACE)
        if len(trimmed) != len(value):
            is_trimmed = False
        if name in headers:
            headers[name] += b", " + trimmed
            repeated.append(name)
        else:
            headers[name] = trimmed
    return RequestHead(path, headers, frozenset(repeated) if repeated else _NONE), is_trimmed


def _trim(raw: Iterable[RawHeader]) -> list[RawHeader]:
    return [(name, value.strip(_SPACE)) for name, value in raw]
