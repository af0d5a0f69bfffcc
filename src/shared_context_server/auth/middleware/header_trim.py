"""Spaces around header values, which are legal and mean nothing."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

_SPACE = b" \t"  # RFC 9110 section 5.5, optional whitespace; httptools leaves it at the end


class HeaderTrimMiddleware:
    """Gives the app header values without the spaces and tabs around them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = scope["headers"]
            if any(value != value.strip(_SPACE) for _, value in headers):
                trimmed = [(name, value.strip(_SPACE)) for name, value in headers]
                scope = {**scope, "headers": trimmed}
        await self.app(scope, receive, send)
