"""The endpoint /mcp: answers a request by the direct lane or by the SDK."""

from __future__ import annotations

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from pydantic_core import to_json
from starlette.types import Message as AsgiMessage
from starlette.types import Receive, Scope, Send

from shared_context_server.auth.client_sessions import ClientSessions
from shared_context_server.auth.middleware import current_connection
from shared_context_server.auth.middleware.answers import send_json
from shared_context_server.auth.middleware.bodies import Unread, read_body, replay_body
from shared_context_server.auth.middleware.head import RawHeader, head_of
from shared_context_server.auth.middleware.mcp_errors import rpc_code, summarize
from shared_context_server.errors import InvalidMessage, SharedContextError
from shared_context_server.jsonrpc import (
    Refused,
    error_answer,
    parse_loosely,
    read_id,
)
from shared_context_server.transport.lane import STREAM_HEADERS, DirectLane
from shared_context_server.transport.mcp_sessions import McpSessionLimits
from shared_context_server.transport.media_types import EVENT_STREAM, JSON, Accepted, read_accept
from shared_context_server.transport.request import McpRequest, check_request
from shared_context_server.transport.user import Users

_FORMS = {
    Accepted(json=True, stream=True): f"{JSON}, {EVENT_STREAM}".encode(),
    Accepted(json=True, stream=False): JSON.encode(),
    # The SDK only streams if the client accepts both. Its JSON answers are put into a stream here.
    Accepted(json=False, stream=True): f"{JSON}, {EVENT_STREAM}".encode(),
}


class McpEndpoint:
    """Answers requests on /mcp in a media type that the client accepts.

    `streaming` and `json_only` are the SDK's managers for clients with and without event streams.
    `sessions` and `lane` are for stateless mode, which has only the method POST. `limits` is for
    stateful mode.
    """

    def __init__(
        self,
        streaming: StreamableHTTPSessionManager,
        json_only: StreamableHTTPSessionManager,
        sessions: ClientSessions | None,
        limits: McpSessionLimits | None = None,
        lane: DirectLane | None = None,
    ) -> None:
        self._streaming = streaming
        self._json_only = json_only
        self._sessions = sessions
        self._limits = limits
        self._lane = lane
        self._users = Users()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = head_of(scope)
        if scope["method"] != "POST":
            accepted = read_accept(head.find_text(b"accept"))
            is_json_only = head.find_text(b"mcp-session-id") in self._json_only._server_instances
            manager = self._json_only if is_json_only else self._streaming  # that has the session
            scope = _rewrite(scope, accepted)
            with self._users.set_user(scope, current_connection.get()):
                await manager.handle_request(scope, receive, send)
            return
        body = await read_body(receive, self._streaming.max_request_body_size)
        if isinstance(body, Unread):
            return  # the client has disconnected; the middleware refuses bodies that are too large
        try:
            request = check_request(head, body, current_connection.get(), self._sessions)
        except Refused as exc:
            error = InvalidMessage(f"{exc.message}.")
            answer = error_answer(exc.request_id, exc.code, exc.message, error.body())
            await send_json(send, error.status, to_json(answer))
            return
        except SharedContextError as exc:
            request_id = read_id(parse_loosely(body))
            message = summarize(exc.body())
            answer = error_answer(request_id, rpc_code(exc.status), message, exc.body())
            await send_json(send, exc.status, to_json(answer))
            return
        if session_id := self._make_session_id(request):
            send = _with_header(send, (b"mcp-session-id", session_id.encode()))
        if self._lane is not None:
            if await self._lane.answer(request, send):
                return
            send = self._lane.cache_result(request, send)
        reset = current_connection.set(request.connection)
        try:
            await self._pass_to_sdk(request, scope, replay_body(body, receive), send)
        finally:
            current_connection.reset(reset)

    async def _pass_to_sdk(
        self, request: McpRequest, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if not request.accepted.json:
            send = _as_event_stream(send)
        manager = self._streaming if request.accepted.stream else self._json_only
        scope = _rewrite(scope, request.accepted)
        with self._users.set_user(scope, request.connection):
            if self._limits is not None and request.opens_session:
                await self._limits.serve(manager, scope, receive, send)
            else:
                await manager.handle_request(scope, receive, send)

    def _make_session_id(self, request: McpRequest) -> str | None:
        """A session id with the client's name, if later requests need it: the caller has a key, and
        nothing else names the agent."""
        connection = request.connection
        if self._sessions is None or connection.is_named or connection.caller.is_anonymous:
            return None
        return self._sessions.make_id(request.client_name)


def _rewrite(scope: Scope, accepted: Accepted) -> Scope:
    """The request with Accept and Content-Type in the form that the SDK expects."""
    kept = [
        (name, value)
        for name, value in scope["headers"]
        if name not in (b"accept", b"content-type")
    ]
    headers = [*kept, (b"accept", _FORMS[accepted]), (b"content-type", JSON.encode())]
    return {**scope, "headers": headers}


def _with_header(send: Send, header: RawHeader) -> Send:
    """Adds a header to successful answers."""

    async def add(message: AsgiMessage) -> None:
        if message["type"] == "http.response.start" and message["status"] < 400:
            message = {**message, "headers": [*message["headers"], header]}
        await send(message)

    return add


def _as_event_stream(send: Send) -> Send:
    """Converts a successful JSON answer to an event stream. The SDK sends such an answer at once."""
    start: AsgiMessage | None = None

    async def convert(message: AsgiMessage) -> None:
        nonlocal start
        if message["type"] == "http.response.start" and _is_json(message):
            start = message
            return
        if start is not None:
            data = message.get("body", b"")
            event = b"event: message\r\ndata: %b\r\n\r\n" % data if data else b""
            kept = [
                (name, value)
                for name, value in start["headers"]
                if name not in (b"content-type", b"content-length")
            ]
            headers = [
                *kept,
                *STREAM_HEADERS,
                (b"content-length", b"%d" % len(event)),
            ]
            await send({**start, "headers": headers})
            start, message = None, {"type": "http.response.body", "body": event}
        await send(message)

    return convert


def _is_json(start: AsgiMessage) -> bool:
    content_type: bytes = dict(start["headers"]).get(b"content-type", b"")
    return bool(start["status"] == 200) and content_type.startswith(JSON.encode())
