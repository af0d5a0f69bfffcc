"""The one error shape, as an HTTP answer of a middleware."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json, to_json
from starlette.types import Send

from shared_context_server.errors import SharedContextError, Unauthenticated

# RFC 9110 section 11.6.1: a 401 names a scheme that would do.
_SERVER_ERROR = -32000  # the first code that JSON-RPC leaves to servers
_CHALLENGE = (b"www-authenticate", b"Bearer")


async def send_error(send: Send, error: SharedContextError, *, closes: bool = False) -> None:
    """Answer with `error`; `closes` tells the client that the connection ends with it."""
    body = to_json(error.body())
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *error_headers(error.status, error.retry_after_s),
    ]
    if closes:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_mcp_error(send: Send, error: SharedContextError, body: bytes) -> None:
    """Answer the JSON-RPC request in `body` with `error`: a tool call with a failed result, as the
    model that called reads it, and another request with the protocol's error."""
    request = _read_request(body)
    identifier = request.get("id")
    if request.get("method") == "tools/call" and identifier is not None:
        text = to_json(error.body()).decode()
        result = {"content": [{"type": "text", "text": text}], "isError": True}
        answer, status = {"jsonrpc": "2.0", "id": identifier, "result": result}, 200
    else:
        failure = {"code": _SERVER_ERROR, "message": error.message, "data": error.body()}
        answer, status = {"jsonrpc": "2.0", "id": identifier, "error": failure}, error.status
    content = to_json(answer)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        *error_headers(error.status, error.retry_after_s),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _read_request(body: bytes) -> dict[str, Any]:
    try:
        request = from_json(body)
    except ValueError:
        return {}
    return request if isinstance(request, dict) else {}


def error_headers(status: int, retry_after_s: int | None) -> list[tuple[bytes, bytes]]:
    """What goes with an error beside its body."""
    headers = [_CHALLENGE] if status == Unauthenticated.status else []
    if retry_after_s is not None:
        headers.append((b"retry-after", str(retry_after_s).encode()))
    return headers
