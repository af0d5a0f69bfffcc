"""Parses and checks a request on /mcp before it is answered."""

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
    """A POST on /mcp that has passed all checks.

    `connection` is the caller, named by the headers and the Mcp-Session-Id. `is_strict`: the body is
    strict JSON, except that numbers may exceed a double.
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
        """Whether the request opens a session in stateful mode."""
        return self.is_handshake_era and self.session_id is None

    @property
    def client_name(self) -> object:
        """The client's own name, if this is an initialize."""
        params = self.message.body.get("params") or {}
        info = params.get("clientInfo") if self.message.method == "initialize" else None
        return info.get("name") if isinstance(info, dict) else None


def check_request(
    head: RequestHead, body: bytes, connection: Connection, sessions: ClientSessions | None
) -> McpRequest:
    """Parse and check the request. Raises SharedContextError or Refused.

    `sessions` reads the names in session ids of stateless mode; None in stateful mode.
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
        # A tool call with NaN, Infinity or lone surrogates: the tool's error names the argument.
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
    """The connection with the name in its session id, if nothing else names the agent.

    An unknown id is then an error, so that the client initializes again and does not become another
    agent. If the id is not needed, it is ignored.
    """
    if session_id is None or connection.is_named or connection.caller.is_anonymous:
        return connection
    name = sessions.read_name(session_id)
    if name is None:
        raise McpSessionNotFound("This server did not issue this Mcp-Session-Id.")
    return connection.with_client_name(name)
