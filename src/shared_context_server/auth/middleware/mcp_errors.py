"""Turns HTTP errors on /mcp into JSON-RPC errors, which MCP clients can read."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from pydantic_core import from_json, to_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared_context_server.auth.middleware.head import head_of
from shared_context_server.auth.middleware.paths import MCP_PATH
from shared_context_server.errors import InvalidArgument, McpSessionNotFound, SharedContextError
from shared_context_server.jsonrpc import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    RequestId,
    error_answer,
    parse_loosely,
    read_id,
)

_SESSION_NOT_FOUND = "Session not found"  # the SDK's words in stateful mode


class McpErrorMiddleware:
    """Gives every error answer on /mcp a JSON-RPC body with the request's id.

    The other layers answer in the common error shape, which becomes the error's data here. An answer
    that is JSON-RPC already is not changed. The id is null if the body was not read before the
    refusal, or is larger than `max_body_bytes`.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self.app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or head_of(scope).path != MCP_PATH or scope["method"] == "HEAD":
            await self.app(scope, receive, send)
            return
        recorder = _BodyRecorder(receive, self._max_body_bytes)
        await self.app(scope, recorder, _ErrorConverter(send, recorder))


class _BodyRecorder:
    """Passes the messages of a request on, and keeps its body to read the id from it."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._chunks: list[bytes] = []
        self._size = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and self._size <= self._max_bytes:
            chunk = message.get("body", b"")
            self._size += len(chunk)
            self._chunks.append(chunk)
            if self._size > self._max_bytes:
                self._chunks.clear()
        return message

    def read_id(self) -> RequestId | None:
        return read_id(parse_loosely(b"".join(self._chunks)))


class _ErrorConverter:
    """Passes successful answers on. Collects the body of an error answer and converts it."""

    def __init__(self, send: Send, recorder: _BodyRecorder) -> None:
        self._send = send
        self._recorder = recorder
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._start = message
            return
        if self._start is None:
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if message.get("more_body", False):
            return
        start, body = self._start, self._body
        answer = compose_answer(start["status"], body, self._recorder.read_id)
        headers = [
            (name, value)
            for name, value in start.get("headers", [])
            if name.lower() not in (b"content-length", b"content-type")
        ]
        headers += [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(answer)),
        ]
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer})


def compose_answer(status: int, body: bytes, find_id: Callable[[], RequestId | None]) -> bytes:
    """The JSON-RPC error for an error answer with this status and body."""
    try:
        content = from_json(body)
    except ValueError:
        content = None
    if isinstance(content, dict) and "jsonrpc" in content:
        return _complete(content, body, find_id)
    if not (isinstance(content, dict) and "suggestion" in content):
        # Errors of the SDK that are not JSON-RPC have one line of text or no body.
        text = body.decode(errors="replace")[:200] or HTTPStatus(status).phrase
        content = InvalidArgument(text).body()
    return to_json(error_answer(find_id(), rpc_code(status), summarize(content), content))


def _complete(
    answer: dict[str, Any], body: bytes, find_id: Callable[[], RequestId | None]
) -> bytes:
    """The SDK's own JSON-RPC error, with our data and the request's id where it has none."""
    error = answer.get("error")
    if not isinstance(error, dict) or "data" in error or answer.get("id") is not None:
        return body
    text = str(error.get("message", ""))
    is_unknown_session = text == _SESSION_NOT_FOUND
    found = McpSessionNotFound(f"{text}.") if is_unknown_session else InvalidArgument(f"{text}.")
    return to_json(answer | {"id": find_id(), "error": error | {"data": found.body()}})


def compose_failed_call(error: SharedContextError, body: bytes) -> bytes | None:
    """A failed result for the tools/call in `body`; None if `body` is no tools/call. Unlike an HTTP
    error, every client shows such a result to its model."""
    request = parse_loosely(body)
    request_id = read_id(request)
    if request_id is None or request.get("method") != "tools/call":
        return None
    content = error.body()
    result = {
        "resultType": "complete",
        "content": [{"type": "text", "text": to_json(content).decode()}],
        "structuredContent": content,
        "isError": True,
    }
    return to_json({"jsonrpc": "2.0", "id": request_id, "result": result})


def rpc_code(status: int) -> int:
    """The JSON-RPC code: an error of the client or of the server. `code` in the data is exact."""
    return INVALID_REQUEST if status < 500 else INTERNAL_ERROR


def summarize(error: dict[str, Any]) -> str:
    """The error and the suggestion, for clients that show only the message."""
    return f"{error['error']} {error['suggestion']}"
