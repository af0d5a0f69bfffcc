"""Protection from DNS rebinding and from other sites' pages."""

from __future__ import annotations

from collections.abc import Sequence

from cachetools import LRUCache
from fastmcp.server.http import HostOriginGuardMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared_context_server.auth.middleware.answers import send_error
from shared_context_server.auth.middleware.bodies import route_path
from shared_context_server.errors import PermissionDenied, SharedContextError

MAX_REMEMBERED = 1024  # combinations of Host, Origin and server address that were let in
PROBE_PATHS = frozenset({"/health", "/ready"})
_MAX_SHOWN_CHARS = 200


class HostNotAllowed(SharedContextError):
    """The Host header names none of the names of this server."""

    code = "HOST_NOT_ALLOWED"
    status = 421
    suggestion = "Use a loopback name, or have the operator add this one to ALLOWED_HOSTS."


class OriginNotAllowed(PermissionDenied):
    """A page of another site is calling."""

    code = "ORIGIN_NOT_ALLOWED"
    suggestion = "The operator can add the origin to CORS_ORIGINS."


class HostOriginMiddleware:
    """FastMCP's guard in strict mode, with refusals in the one error shape.

    Accepted hosts: the loopback names, the address listened on, `allowed_hosts` (`*` for any), and
    none where a probe asks in HTTP/1.0.
    Accepted origins: none, the same as the host's, `allowed_origins`.
    """

    def __init__(
        self, app: ASGIApp, *, allowed_hosts: Sequence[str], allowed_origins: Sequence[str]
    ) -> None:
        self.app = app
        self._guard = HostOriginGuardMiddleware(
            _note_accepted,
            allowed_hosts=allowed_hosts,
            allowed_origins=allowed_origins,
            mode="strict",
        )
        self._accepted: LRUCache[tuple[object, ...], None] = LRUCache(MAX_REMEMBERED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        host, origin = _read_host_and_origin(scope)
        if not host and _is_plain_probe(scope):
            await self.app(scope, receive, send)
            return
        case = (host, origin, scope.get("scheme"), scope.get("server"))
        if case not in self._accepted:
            verdict = _Verdict()
            await self._guard(scope, receive, verdict)
            if not verdict.is_accepted:
                await send_error(send, _explain(verdict.status, host, origin))
                return
            self._accepted[case] = None
        await self.app(scope, receive, send)


class _Verdict:
    """Stands in for the connection to the client, to hear what the guard would answer."""

    def __init__(self) -> None:
        self.is_accepted = False
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]


async def _note_accepted(_scope: Scope, _receive: Receive, send: Send) -> None:
    """The app that the guard lets a request through to."""
    if isinstance(send, _Verdict):
        send.is_accepted = True


def _read_host_and_origin(scope: Scope) -> tuple[bytes, bytes]:
    """The first of each, as the guard reads them; empty when there is none."""
    host = origin = None
    for name, value in scope["headers"]:
        if name == b"host" and host is None:
            host = value
        elif name == b"origin" and origin is None:
            origin = value
    return host or b"", origin or b""


def _is_plain_probe(scope: Scope) -> bool:
    """Whether a load balancer asks in HTTP/1.0, which has no Host. Browsers do not speak it, so no
    page can be behind it, and the answer tells nothing of the data."""
    return bool(scope.get("http_version") == "1.0") and route_path(scope) in PROBE_PATHS


def _explain(status: int, host: bytes, origin: bytes) -> SharedContextError:
    if status == HostNotAllowed.status:
        shown = host.decode("latin-1")[:_MAX_SHOWN_CHARS]
        return HostNotAllowed(f"The Host {shown!r} is not allowed.", field="Host")
    shown = origin.decode("latin-1")[:_MAX_SHOWN_CHARS]
    return OriginNotAllowed(f"The Origin {shown!r} is not allowed.", field="Origin")
