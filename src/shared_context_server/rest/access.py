"""The access log: one line for each request, only with LOG_LEVEL=DEBUG.

Not at the default level: /metrics counts calls, and a line for each costs throughput.
"""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared_context_server.observability.logs import get_logger

NO_ANSWER = 499  # nginx's status for a client that disconnected before the answer

_log = get_logger("access")


class AccessLog:
    """ASGI middleware: method, path without its query, status and duration of each request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = NO_ANSWER

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            _log.debug(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                duration_ms=round((time.perf_counter() - started) * 1000, 2),
            )
