"""Refusals on /mcp in the form that MCP clients read: a JSON-RPC error, our shape in its data."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from pydantic_core import from_json, to_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared_context_server.auth.middleware.head import head_of
from shared_context_server.auth.middleware.paths import MCP_PATH
from shared_context_server.errors import InvalidArgument, SharedContextError
from shared_context_server.jsonrpc import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    RequestId,
    error_answer,
    parse_loosely,
    read_id,
)


class McpErrorMiddleware:
    """Gives every error status on /mcp a JSON-RPC body under the request's id.

    Whichever layer refuses: those in front of the app answer in the one error shape, which goes
    into the error's data here. What is JSON-RPC already passes as it is. The id is null where the
    request was refused before its body was read, or is larger than `max_body_bytes`.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self.app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or head_of(scope).path != MCP_PATH or scope["method"] == "HEAD":
            await self.app(scope, receive, send)
            return
        heard = _Heard(receive, self._max_body_bytes)
        await self.app(scope, heard, _Answer(send, heard))


class _Heard:
    """Hands a request's messages on, and keeps its body for the id."""

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


class _Answer:
    """Passes answers on; the parts of an error are held until its body is whole."""

    def __init__(self, send: Send, heard: _Heard) -> None:
        self._send = send
        self._heard = heard
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
        answer = compose_answer(start["status"], body, self._heard.read_id)
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
    """The JSON-RPC error for a refusal of this status and body."""
    try:
        content = from_json(body)
    except ValueError:
        content = None
    if isinstance(content, dict) and "jsonrpc" in content:
        return body
    if not (isinstance(content, dict) and "suggestion" in content):
        # The SDK's own refusals of what is not JSON-RPC have a line of text or nothing.
        text = body.decode(errors="replace")[:200] or HTTPStatus(status).phrase
        content = InvalidArgument(text).body()
    return to_json(error_answer(find_id(), rpc_code(status), summarize(content), content))


def compose_failed_call(error: SharedContextError, body: bytes) -> bytes | None:
    """The answer to the tools/call in `body` whose result has failed, which the model that called
    reads, whatever its client makes of HTTP's status; None where `body` is something else."""
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
    """JSON-RPC's number: the caller's fault or ours. What it was, `code` in the data says."""
    return INVALID_REQUEST if status < 500 else INTERNAL_ERROR


def summarize(error: dict[str, Any]) -> str:
    """What went wrong and what to do, for clients that show the message and not the data."""
    return f"{error['error']} {error['suggestion']}"
