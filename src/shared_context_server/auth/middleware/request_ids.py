"""Gives each HTTP request an id: the client's, or one of ours."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared_context_server.observability.request_ids import current_request_id, new_request_id

HEADER = b"x-request-id"
MAX_ID_CHARS = 128
_USABLE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,%d}" % MAX_ID_CHARS)


class RequestIds:
    """ASGI middleware: takes the request's X-Request-ID, or makes an id if there is none that can be
    logged as it is, and sends it with the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _find_id(scope) or new_request_id()
        header = (HEADER, request_id.encode())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        reset = current_request_id.set(request_id)
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            current_request_id.reset(reset)


def _find_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == HEADER:
            stripped = value.strip(b" \t")
            return stripped.decode() if _USABLE.fullmatch(stripped) else None
    return None
