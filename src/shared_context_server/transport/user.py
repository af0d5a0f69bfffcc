"""Gives the caller to the MCP SDK and FastMCP in their own form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cachetools import LRUCache
from fastmcp.server.auth.auth import AccessToken
from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from pydantic import ConfigDict, Field, InstanceOf
from starlette.types import Scope

from shared_context_server.auth.connection import Connection

MAX_REMEMBERED = 1024  # connections: about 2 KiB each


class ConnectionToken(AccessToken):
    """The result of get_access_token(): the connection, without a credential."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    connection: InstanceOf[Connection] = Field(exclude=True, repr=False)


class Users:
    """Sets the SDK's user in `scope["user"]` and its context variable, so that get_access_token() works
    in tools, resources and listen handlers."""

    def __init__(self) -> None:
        self._users: LRUCache[Connection, AuthenticatedUser] = LRUCache(MAX_REMEMBERED)

    @contextmanager
    def set_user(self, scope: Scope, connection: Connection) -> Iterator[None]:
        """Set the user while the SDK serves a request."""
        user = None if connection.caller.is_anonymous else self._get_user(connection)
        if user is not None:
            scope["user"] = user
        reset = auth_context_var.set(user)
        try:
            yield
        finally:
            auth_context_var.reset(reset)

    def _get_user(self, connection: Connection) -> AuthenticatedUser:
        user = self._users.get(connection)
        if user is None:
            user = self._users[connection] = _make_user(connection)
        return user


def _make_user(connection: Connection) -> AuthenticatedUser:
    """The SDK's user: key and agent, so that a session stays valid when its token is renewed."""
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
