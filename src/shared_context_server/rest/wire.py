"""Read request bodies and send responses directly on ASGI, because the tool route is a hot path."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared_context_server.auth.middleware.answers import error_headers
from shared_context_server.auth.middleware.head import RawHeader
from shared_context_server.services.mentions import UnreadMentions, header_value
from shared_context_server.tools.dispatch import Outcome

T = TypeVar("T")

JSON = b"application/json"
_END_S = 1.0  # that the end of a stream may take at a stop of the server
UNREAD_HEADER = b"x-unread-mentions"


async def read_body(receive: Receive) -> bytes | None:
    """Return the whole body; None if the client has disconnected. The middleware limits its size."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")  # one message: the usual case
        return body
    chunks = []
    while message["type"] == "http.request":
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)
        message = await receive()
    return None


async def send_body(
    send: Send,
    body: bytes,
    *,
    status: int = 200,
    content_type: bytes = JSON,
    headers: Iterable[RawHeader] = (),
) -> None:
    """Send a response with this body."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", content_type),
                (b"content-length", b"%d" % len(body)),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def finish_answer(answer: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run an answer, and end its body where it has stopped in the middle, as a stream does when the
    server stops. Else the HTTP server reports an error."""
    is_open = False

    async def watch(message: Message) -> None:
        nonlocal is_open
        await send(message)
        is_open = message["type"] == "http.response.start" or message.get("more_body", False)

    await answer(scope, receive, watch)
    if is_open:
        with anyio.move_on_after(_END_S):  # a reader that is too slow is left behind
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def send_outcome(send: Send, outcome: Outcome) -> None:
    """Send the outcome of a call."""
    headers: Sequence[RawHeader] = ()
    if outcome.is_error:
        headers = error_headers(outcome.status, outcome.retry_after_s)
    elif outcome.unread is not None:
        headers = [unread_header(outcome.unread)]
    await send_body(send, outcome.json(), status=outcome.status, headers=headers)


def unread_header(unread: UnreadMentions) -> RawHeader:
    """The header that tells of unread mentions, as JSON in ASCII."""
    return UNREAD_HEADER, header_value(unread)


class FixedAnswer:
    """An endpoint whose response never changes."""

    def __init__(
        self, body: bytes, content_type: bytes = JSON, headers: Iterable[RawHeader] = ()
    ) -> None:
        self._body = body
        self._content_type = content_type
        self._headers = tuple(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_body(send, self._body, content_type=self._content_type, headers=self._headers)


class LateAnswer:
    """An endpoint whose response never changes, made in a thread for the first request."""

    def __init__(self, make: Callable[[], FixedAnswer]) -> None:
        self._make = make
        self._making: asyncio.Task[FixedAnswer] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._making is None:
            self._making = asyncio.create_task(asyncio.to_thread(self._make))
        making = self._making
        try:
            answer = await asyncio.shield(making)  # the first client may disconnect
        except Exception:
            if self._making is making:
                self._making = None  # the next request tries again
            raise
        await answer(scope, receive, send)


async def run_while_connected(receive: Receive, answer: Awaitable[T]) -> T | None:
    """Return the awaited result. If the client disconnects first, cancel it and return None.

    To be called after the whole body has been read.
    """
    working = asyncio.ensure_future(answer)
    watching = asyncio.ensure_future(_wait_for_hang_up(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _wait_for_hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
