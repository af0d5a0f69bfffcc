"""Who is calling, established once for every surface of the app."""

from __future__ import annotations

from collections.abc import Collection
from contextvars import ContextVar

from cachetools import LRUCache
from fastmcp.server.auth.auth import AccessToken
from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from pydantic import ConfigDict, Field, InstanceOf
from starlette.types import ASGIApp, Receive, Scope, Send

from shared_context_server.auth.connection import Connection
from shared_context_server.auth.identity import Identity
from shared_context_server.auth.limits import RateLimits
from shared_context_server.auth.middleware.answers import error_headers, send_error, send_json
from shared_context_server.auth.middleware.authentication_path import leads_to_authentication
from shared_context_server.auth.middleware.bodies import Unread, read_body, replay_body
from shared_context_server.auth.middleware.mcp_errors import compose_failed_call
from shared_context_server.auth.middleware.paths import MCP_PATH, PROBE_PATHS, route_path
from shared_context_server.errors import RateLimited, SharedContextError, Unauthenticated

current_connection: ContextVar[Connection] = ContextVar("connection", default=Connection())  # noqa: B039
"""The connection of the request that is being served; outside of requests an anonymous one."""

MAX_REMEMBERED = 1024  # connections whose mcp user was made: about 2 KiB each
_HEADERS = frozenset({b"authorization", b"x-api-key", b"x-agent-id", b"x-agent-type"})


class ConnectionToken(AccessToken):
    """What mcp's and FastMCP's get_access_token() answers: the connection, and no credential."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    connection: InstanceOf[Connection] = Field(exclude=True, repr=False)


class IdentityMiddleware:
    """Reads the headers that say who is calling, and refuses bad credentials.

    The Connection goes into `current_connection` and `scope["state"]["connection"]`; for callers
    with an identity also into `scope["user"]` and mcp's own context, so that get_access_token()
    works in tools, resources and listen handlers. A refused credential is answered here, unless
    the request leads to authenticate_agent. On public paths nobody's identity is asked for.
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
        self._users: LRUCache[Connection, AuthenticatedUser] = LRUCache(MAX_REMEMBERED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            connection = await self._connect(scope)
        except SharedContextError as exc:
            await send_error(send, exc)
            return
        if self._limits is not None and route_path(scope) not in PROBE_PATHS:
            try:
                self._limits.spend(connection)
            except RateLimited as exc:
                await self._refuse_too_many(exc, scope, receive, send)
                return
        if connection.refused is not None:
            body = await read_body(receive, self._max_body_bytes)
            if body is Unread.DISCONNECTED:
                return
            if isinstance(body, Unread) or not leads_to_authentication(
                scope["method"], route_path(scope), body
            ):
                await send_error(send, self._count_failure(connection))
                return
            receive = replay_body(body, receive)
        await self._serve(connection, scope, receive, send)

    def _count_failure(self, connection: Connection) -> SharedContextError:
        """Why the credential is refused, or that the address has presented too many wrong ones."""
        assert connection.refused is not None
        if self._limits is not None and isinstance(connection.refused, Unauthenticated):
            try:
                self._limits.fail(connection.address)
            except RateLimited as exc:
                return exc
        return connection.refused

    async def _refuse_too_many(
        self, error: RateLimited, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if route_path(scope) == MCP_PATH and scope["method"] == "POST":
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
        if route_path(scope) in self._public_paths:
            return Connection(address=address)
        found: dict[bytes, str] = {}
        for name, value in scope["headers"]:
            if name in _HEADERS and name not in found:
                found[name] = _decode(value)
        return await self._identity.connect(
            authorization=found.get(b"authorization"),
            api_key=found.get(b"x-api-key"),
            agent_id=found.get(b"x-agent-id"),
            agent_type=found.get(b"x-agent-type"),
            address=address,
        )

    async def _serve(
        self, connection: Connection, scope: Scope, receive: Receive, send: Send
    ) -> None:
        scope.setdefault("state", {})["connection"] = connection
        user = None if connection.caller.is_anonymous else self._get_user(connection)
        if user is not None:
            scope["user"] = user
        user_reset = auth_context_var.set(user)
        connection_reset = current_connection.set(connection)
        try:
            await self.app(scope, receive, send)
        finally:
            current_connection.reset(connection_reset)
            auth_context_var.reset(user_reset)

    def _get_user(self, connection: Connection) -> AuthenticatedUser:
        user = self._users.get(connection)
        if user is None:
            user = self._users[connection] = _make_user(connection)
        return user


def _make_user(connection: Connection) -> AuthenticatedUser:
    """The principal as mcp knows it: key and agent, so that a session outlives a token's renewal."""
    caller = connection.caller
    return AuthenticatedUser(
        ConnectionToken(
            token="",
            client_id=caller.key_id,
            scopes=[permission.value for permission in caller.permissions],
            subject=caller.agent_id,
            connection=connection,
        )
    )


def _decode(value: bytes) -> str:
    """Header bytes as text: UTF-8, which is what clients send nowadays, or else Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
