"""Sends JSON and errors as HTTP answers from a middleware."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic_core import to_json
from starlette.types import Send

from shared_context_server.errors import SharedContextError, Unauthenticated

# RFC 9110 section 11.6.1: a 401 must name an accepted scheme.
_CHALLENGE = (b"www-authenticate", b"Bearer")


async def send_error(send: Send, error: SharedContextError, *, closes: bool = False) -> None:
    """Answer with `error`. `closes` adds the header Connection: close."""
    headers = error_headers(error.status, error.retry_after_s)
    if closes:
        headers.append((b"connection", b"close"))
    await send_json(send, error.status, to_json(error.body()), headers)


async def send_json(
    send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Answer with this JSON."""
    about_body = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]
    await send(
        {"type": "http.response.start", "status": status, "headers": [*about_body, *headers]}
    )
    await send({"type": "http.response.body", "body": body})


def error_headers(status: int, retry_after_s: int | None) -> list[tuple[bytes, bytes]]:
    """The headers of an error answer."""
    headers = [_CHALLENGE] if status == Unauthenticated.status else []
    if retry_after_s is not None:
        headers.append((b"retry-after", str(retry_after_s).encode()))
    return headers
