"""The caller in the form of the MCP SDK and of FastMCP."""

from __future__ import annotations

from typing import Any

from fastmcp.server.dependencies import get_access_token
from fastmcp.server.http import set_http_request
from mcp.server.auth.middleware.auth_context import auth_context_var
from starlette.requests import Request

from shared_context_server.auth.connection import Connection
from shared_context_server.models import Caller, Permission
from shared_context_server.transport.user import ConnectionToken, Users

CALLER = Caller("worker-7", "claude", frozenset({Permission.READ}), "key_1")


def make_scope() -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": "/mcp", "headers": []}


def test_a_caller_is_the_user_and_the_access_token_without_a_credential() -> None:
    connection, scope = Connection(CALLER), make_scope()
    with Users().set_user(scope, connection), set_http_request(Request(scope)):
        token = get_access_token()
    assert isinstance(token, ConnectionToken)
    assert token.connection is connection
    assert (token.client_id, token.subject, token.scopes) == ("key_1", "worker-7", ["read"])
    assert token.token == ""
    assert "connection" not in token.model_dump()
    assert scope["user"].display_name == "key_1"


def test_the_anonymous_are_no_user_and_nothing_outlives_a_request() -> None:
    users = Users()
    with users.set_user(make_scope(), Connection(CALLER)):
        pass
    assert auth_context_var.get() is None
    scope = make_scope()
    with users.set_user(scope, Connection()):
        assert auth_context_var.get() is None
    assert "user" not in scope
