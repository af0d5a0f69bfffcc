"""Authenticates each HTTP request and counts it for the rate limits."""

from __future__ import annotations

from collections.abc import Collection
from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

from shared_context_server.auth.connection import Connection
from shared_context_server.auth.identity import Identity
from shared_context_server.auth.instances import name_instance, name_trace
from shared_context_server.auth.limits import RateLimits
from shared_context_server.auth.middleware.answers import error_headers, send_error, send_json
from shared_context_server.auth.middleware.authentication_requests import is_authentication
from shared_context_server.auth.middleware.bodies import Unread, read_body, replay_body
from shared_context_server.auth.middleware.head import head_of
from shared_context_server.auth.middleware.mcp_errors import compose_failed_call
from shared_context_server.auth.middleware.paths import MCP_PATH, PROBE_PATHS
from shared_context_server.errors import RateLimited, SharedContextError, Unauthenticated

current_connection: ContextVar[Connection] = ContextVar("connection", default=Connection())  # noqa: B039
"""The connection of the current request; outside of requests an anonymous one."""


class IdentityMiddleware:
    """Reads the headers that identify the caller, and refuses invalid credentials.

    It sets `current_connection`. A request with an invalid credential is refused, unless it calls
    authenticate_agent. Public paths need no identity.
    """

    def __init__(
        self,
        app: ASGIApp,
        identity: Identity,
        *,
        limits: RateLimits | None = None,
        public_paths: Collection[str] = (),
        max_body_bytes: int,
    ) -> None:
        self.app = app
        self._identity = identity
        self._limits = limits
        self._public_paths = frozenset(public_paths)
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            connection = await self._connect(scope)
        except SharedContextError as exc:
            await send_error(send, exc)
            return
        path = head_of(scope).path
        if self._limits is not None and path not in PROBE_PATHS:
            try:
                self._limits.count_request(connection)
            except RateLimited as exc:
                await self._refuse_too_many(exc, scope, receive, send)
                return
        if connection.refused is not None:
            body = await read_body(receive, self._max_body_bytes)
            if body is Unread.DISCONNECTED:
                return
            if isinstance(body, Unread) or not is_authentication(scope["method"], path, body):
                await send_error(send, self._count_failure(connection))
                return
            receive = replay_body(body, receive)
        reset = current_connection.set(connection)
        try:
            await self.app(scope, receive, send)
        finally:
            current_connection.reset(reset)

    def _count_failure(self, connection: Connection) -> SharedContextError:
        """The refusal of the credential, or RateLimited if the address had too many wrong ones."""
        assert connection.refused is not None
        if self._limits is not None and isinstance(connection.refused, Unauthenticated):
            try:
                self._limits.count_failure(connection.address)
            except RateLimited as exc:
                return exc
        return connection.refused

    async def _refuse_too_many(
        self, error: RateLimited, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if head_of(scope).path == MCP_PATH and scope["method"] == "POST":
            body = await read_body(receive, self._max_body_bytes)
            if body is Unread.DISCONNECTED:
                return
            answer = None if isinstance(body, Unread) else compose_failed_call(error, body)
            if answer is not None:
                await send_json(send, 200, answer, error_headers(200, error.retry_after_s))
                return
        await send_error(send, error)

    async def _connect(self, scope: Scope) -> Connection:
        client = scope.get("client")
        address: str = client[0] if client else ""
        head = head_of(scope)
        if head.path in self._public_paths:
            return Connection(address=address)
        connection = await self._identity.authenticate_headers(
            authorization=head.find_text(b"authorization"),
            api_key=head.find_text(b"x-api-key"),
            agent_id=head.find_text(b"x-agent-id"),
            agent_type=head.find_text(b"x-agent-type"),
            address=address,
        )
        instance = head.find_text(b"x-agent-instance")
        if instance is not None:
            connection = name_instance(connection, instance)
        trace_parent = head.find_text(b"traceparent")
        if trace_parent is not None:
            connection = name_trace(connection, trace_parent, head.find_text(b"tracestate"))
        return connection
