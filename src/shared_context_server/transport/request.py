"""A request on /mcp: what is checked of it before anybody answers it."""

from __future__ import annotations

from dataclasses import dataclass

from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from pydantic_core import from_json

from shared_context_server.auth.client_sessions import ClientSessions
from shared_context_server.auth.connection import Connection
from shared_context_server.auth.middleware.head import RequestHead
from shared_context_server.errors import McpSessionNotFound
from shared_context_server.jsonrpc import Message, Refused, classify, parse_loosely, read_message
from shared_context_server.transport.media_types import Accepted, read_accept, require_json


@dataclass(slots=True)
class McpRequest:
    """A POST on /mcp that has passed every check of ours, for whoever answers it.

    `connection` is the caller as their headers and their Mcp-Session-Id name them. `is_strict`: the
    body is strict JSON, but for numbers that may be beyond a double.
    """

    head: RequestHead
    message: Message
    body: bytes
    accepted: Accepted
    connection: Connection
    is_handshake_era: bool
    session_id: str | None
    is_strict: bool

    @property
    def opens_session(self) -> bool:
        """Whether it can succeed, where sessions are kept, only by opening one."""
        return self.is_handshake_era and self.session_id is None

    @property
    def client_name(self) -> object:
        """What the client calls itself, in an initialize."""
        params = self.message.body.get("params") or {}
        info = params.get("clientInfo") if self.message.method == "initialize" else None
        return info.get("name") if isinstance(info, dict) else None


def check_request(
    head: RequestHead, body: bytes, connection: Connection, sessions: ClientSessions | None
) -> McpRequest:
    """The request, or a SharedContextError or Refused that says what is wrong with it.

    With `sessions`, the ids of stateless mode name callers.
    """
    accepted = read_accept(head.find_text(b"accept"))
    require_json(head.find_text(b"content-type"))
    version = head.find_text(b"mcp-protocol-version")
    is_handshake_era = version is None or version in HANDSHAKE_PROTOCOL_VERSIONS
    message, is_strict = _read(body, is_handshake_era=is_handshake_era)
    session_id = head.find_text(b"mcp-session-id")
    if sessions is not None and is_handshake_era and message.method != "initialize":
        connection = _name(connection, session_id, sessions)
    return McpRequest(
        head, message, body, accepted, connection, is_handshake_era, session_id, is_strict
    )


def _read(body: bytes, *, is_handshake_era: bool) -> tuple[Message, bool]:
    """The message, and whether it is strict JSON."""
    try:
        return read_message(body, len(body)), True
    except Refused:
        # NaN, Infinity and lone surrogates in a tool's arguments: the tool names the argument.
        message = parse_loosely(body)
        if not isinstance(message, dict) or message.get("method") != "tools/call":
            raise
        if is_handshake_era and not _is_readable_by_sdk(body):
            raise
    return classify(message), False


def _is_readable_by_sdk(body: bytes) -> bool:
    try:
        from_json(body)
    except ValueError:
        return False
    return True


def _name(connection: Connection, session_id: str | None, sessions: ClientSessions) -> Connection:
    """The connection under the name in its session's id, where nothing else names it.

    An id that is not ours is told there, so that the client initializes anew instead of becoming
    another agent. Where it would decide nothing it is ignored.
    """
    if session_id is None or connection.is_named or connection.caller.is_anonymous:
        return connection
    name = sessions.read_name(session_id)
    if name is None:
        raise McpSessionNotFound("This Mcp-Session-Id was not given by this server.")
    return connection.with_client_name(name)
