"""Security headers of the dashboard."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared_context_server.auth.middleware.paths import UI_PATH
from shared_context_server.ui.paths import is_ui_path

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
SECURITY_HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    # With no-referrer browsers would send "Origin: null" with forms, and the check of the origin
    # would refuse them.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    (b"x-frame-options", b"DENY"),
)
NO_STORE = (b"cache-control", b"no-store")


class UiHeaders:
    """ASGI middleware: adds the security headers to every answer below /ui, also to those of other
    middleware. An answer without Cache-Control is not stored."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and UI_PATH in scope["path"] and is_ui_path(scope):
            send = _with_headers(send)
        await self._app(scope, receive, send)


def _with_headers(send: Send) -> Send:
    async def add(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", ()))
            names = {name.lower() for name, _ in given}
            added = [header for header in SECURITY_HEADERS if header[0] not in names]
            if NO_STORE[0] not in names:
                added.append(NO_STORE)
            message = {**message, "headers": [*given, *added]}
        await send(message)

    return add
