"""Limits the size of request bodies on all routes."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

from shared_context_server.auth.middleware.answers import send_error
from shared_context_server.auth.middleware.bodies import Unread, read_body, replay_body
from shared_context_server.auth.middleware.head import head_of
from shared_context_server.errors import ContentTooLarge

DRAIN_MAX_BYTES = 64 * 1024 * 1024
DRAIN_MAX_S = 10.0


class BodyLimitMiddleware:
    """Answers 413 to a body over the limit, after the client has sent it.

    If the connection closes while a client sends, the client sees a reset and not the answer. So the
    rest of the body is read first, up to DRAIN_MAX_BYTES or DRAIN_MAX_S. A body with a
    Content-Length within the limit is passed on unread: the server enforces that length. A body of
    unknown length is read before the app gets the request.
    """

    def __init__(
        self, app: ASGIApp, max_bytes: int, note_limited: Callable[[str], None] | None = None
    ) -> None:
        self.app = app
        self._max_bytes = max_bytes
        self._note_limited = note_limited

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        head = head_of(scope)
        if head.is_chunked:
            body = await read_body(receive, self._max_bytes)
            if body is Unread.DISCONNECTED:
                return
            if body is Unread.TOO_LARGE:
                await self._refuse(receive, send)
                return
            receive = replay_body(body, receive)
        elif head.body_length > self._max_bytes:
            if head.headers.get(b"expect", b"").lower() == b"100-continue":
                # The client has not sent the body yet, and will not send it after this answer.
                await send_error(send, self._error(), closes=True)
            else:
                await self._refuse(receive, send)
            return
        await self.app(scope, receive, send)

    async def _refuse(self, receive: Receive, send: Send) -> None:
        rest = None
        with anyio.move_on_after(DRAIN_MAX_S):
            rest = await _drain(receive)
        if rest is not Unread.DISCONNECTED:
            await send_error(send, self._error(), closes=rest is not _DRAINED)

    def _error(self) -> ContentTooLarge:
        if self._note_limited is not None:
            self._note_limited("max_body_bytes")
        return ContentTooLarge(
            f"The request body is over the limit of {self._max_bytes} bytes.",
            limit_bytes=self._max_bytes,
        )


_DRAINED = b""


async def _drain(receive: Receive) -> bytes | Unread:
    """Read and discard the rest of the body. Return _DRAINED at its end."""
    read_bytes = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return Unread.DISCONNECTED
        read_bytes += len(message.get("body", b""))
        if not message.get("more_body", False):
            return _DRAINED
        if read_bytes > DRAIN_MAX_BYTES:
            return Unread.TOO_LARGE
