"""Checks Host and Origin against DNS rebinding and cross-site requests, and refuses repeated
headers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from cachetools import LRUCache
from starlette.types import ASGIApp, Receive, Scope, Send

from shared_context_server.auth.middleware.answers import send_error
from shared_context_server.auth.middleware.head import RequestHead, head_of
from shared_context_server.auth.middleware.paths import PROBE_PATHS, UI_PATH
from shared_context_server.errors import (
    MalformedRequest,
    PermissionDenied,
    SharedContextError,
    UnsupportedMediaType,
)

MAX_REMEMBERED = 1024  # accepted combinations of Host, Origin, scheme and server address
_MAX_REMEMBERED_BYTES = 300  # of an Origin: CORS_ORIGINS may accept any
_MAX_SHOWN_CHARS = 200

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
_UNSPECIFIED = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not bound
_DEFAULT_PORTS = {"http": 80, "https": 443}
# A name, an IPv4 address, or an IPv6 address in brackets, and a port (RFC 9110 section 7.2). A user name
# or a list is not allowed.
_HOST = re.compile(
    rb"(?P<name>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
)
# If such a header is repeated, one program may use the first value and another one the last.
_SINGLE = frozenset(
    {
        b"host",
        b"origin",
        b"authorization",
        b"x-api-key",
        b"x-agent-id",
        b"x-agent-type",
        b"x-agent-instance",
        b"content-type",
        b"mcp-session-id",
        b"mcp-protocol-version",
    }
)
_JSON = b"application/json"


class HostNotAllowed(SharedContextError):
    """The Host header is not one of this server's names."""

    code = "HOST_NOT_ALLOWED"
    status = 421
    suggestion = "Use a loopback name, or ask the operator to add this name to ALLOWED_HOSTS."


class OriginNotAllowed(PermissionDenied):
    """The request comes from a page of another site."""

    code = "ORIGIN_NOT_ALLOWED"
    suggestion = "The operator can add the origin to CORS_ORIGINS."


class HostOriginMiddleware:
    """Accepts only requests for this server, from clients that are no pages or from allowed pages.

    Accepted hosts: the loopback names, the address of the server, and `allowed_hosts` (with
    wildcards, `*` for any). A probe in HTTP/1.0 needs no Host. Accepted origins: no Origin header, the
    scheme, host and port of the request itself, and `allowed_origins`. With `is_json_required`, for
    servers without authentication, a POST must have the content type JSON: a page of another origin
    cannot send that without a CORS preflight. The dashboard's forms are checked in another way.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        allowed_hosts: Sequence[str],
        allowed_origins: Sequence[str],
        is_json_required: bool = False,
    ) -> None:
        self.app = app
        self._allowed_hosts = tuple(map(_normalize_name, allowed_hosts))
        self._allowed_origins = tuple(map(_normalize_origin, allowed_origins))
        self._is_json_required = is_json_required
        self._accepted: LRUCache[tuple[object, ...], None] = LRUCache(MAX_REMEMBERED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refused = self._find_refusal(scope)
        if refused is not None:
            await send_error(send, refused)
            return
        await self.app(scope, receive, send)

    def _find_refusal(self, scope: Scope) -> SharedContextError | None:
        head = head_of(scope)
        for name in head.repeated & _SINGLE:
            return MalformedRequest(f"it has several {name.decode().title()} headers")
        host, origin = head.headers.get(b"host"), head.headers.get(b"origin")
        if not host and _is_http10_probe(scope):
            return None
        case = (host, origin, scope.get("scheme"), scope.get("server"))
        if case not in self._accepted:
            refused = self._check_host(host or b"", scope) or self._check_origin(
                host, origin, scope
            )
            if refused is not None:
                return refused
            if len(origin or b"") <= _MAX_REMEMBERED_BYTES:
                self._accepted[case] = None
        is_json_required = self._is_json_required and not head.path.startswith(UI_PATH + "/")
        if is_json_required and scope["method"] == "POST" and _has_body(head):
            media_type = head.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if media_type != _JSON:
                return UnsupportedMediaType(
                    "On a server without authentication a POST must have the content type JSON.",
                    field="Content-Type",
                )
        return None

    def _check_host(self, host: bytes, scope: Scope) -> SharedContextError | None:
        parsed = _HOST.fullmatch(host)
        shown = host.decode("latin-1")[:_MAX_SHOWN_CHARS]
        if host and parsed is None:
            return MalformedRequest(f"{shown!r} is not a valid Host")
        server = scope.get("server")
        own = (server[0],) if server and server[0] not in _UNSPECIFIED else ()
        name = "" if parsed is None else _normalize_name(parsed["name"].decode())
        if parsed is not None and (
            name in _LOOPBACK_NAMES
            or name in own
            or any(fnmatchcase(name, pattern) for pattern in self._allowed_hosts)
        ):
            return None
        return HostNotAllowed(f"The Host {shown!r} is not allowed.", field="Host")

    def _check_origin(
        self, host: bytes | None, origin: bytes | None, scope: Scope
    ) -> SharedContextError | None:
        if origin is None:
            return None
        presented = _normalize_origin(origin.decode("latin-1"))
        own = _normalize_origin(
            f"{scope.get('scheme', 'http')}://{(host or b'').decode('latin-1')}"
        )
        if presented == own or presented in self._allowed_origins:
            return None
        if any(fnmatchcase(presented, pattern) for pattern in self._allowed_origins):
            return None
        shown = origin.decode("latin-1")[:_MAX_SHOWN_CHARS]
        return OriginNotAllowed(f"The Origin {shown!r} is not allowed.", field="Origin")


def _is_http10_probe(scope: Scope) -> bool:
    """Whether this is a health check in HTTP/1.0, which has no Host. Browsers do not use HTTP/1.0, and
    the answer contains no data."""
    return bool(scope.get("http_version") == "1.0") and head_of(scope).path in PROBE_PATHS


def _has_body(head: RequestHead) -> bool:
    return head.is_chunked or bool(head.headers.get(b"content-length", b"").strip(b" 0"))


def _normalize_name(name: str) -> str:
    """A host name in lower case, without brackets and port."""
    name = name.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0] if name.count(":") == 1 else name


def _normalize_origin(origin: str) -> str:
    """Scheme, host and port. The default port of the scheme is left out."""
    origin = origin.strip().rstrip("/").lower()
    try:
        parsed = urlsplit(origin)
        port = parsed.port
    except ValueError:
        return origin
    is_origin = parsed.hostname and not (parsed.path or parsed.query or parsed.fragment)
    if not is_origin or "@" in parsed.netloc:
        return origin
    host = f"[{parsed.hostname}]" if ":" in (parsed.hostname or "") else parsed.hostname
    is_default = port is None or port == _DEFAULT_PORTS.get(parsed.scheme)
    return f"{parsed.scheme}://{host}" + ("" if is_default else f":{port}")
