"""The dashboard's routes, imported when somebody first asks for a page: many servers never show one."""

from __future__ import annotations

import asyncio

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from shared_context_server.auth.middleware.paths import UI_PATH
from shared_context_server.tools.dispatch import Dispatcher


def make_late_routes(dispatcher: Dispatcher) -> list[BaseRoute]:
    """Return routes for all addresses of the dashboard."""
    dashboard = LateDashboard(dispatcher)
    return [Route(UI_PATH, dashboard), Route(UI_PATH + "/{rest:path}", dashboard)]


class LateDashboard:
    """An ASGI app that makes the dashboard in a thread for the first request."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._app: ASGIApp | None = None
        self._lock = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            async with self._lock:
                if self._app is None:
                    self._app = await asyncio.to_thread(self._make)
        await self._app(scope, receive, send)

    def _make(self) -> ASGIApp:
        from shared_context_server.ui.routes import make_ui_app  # noqa: PLC0415 - see above

        return make_ui_app(self._dispatcher)
