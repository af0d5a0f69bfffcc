"""A slash at a path's end, which means nothing here: not all clients follow a redirect."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class TrailingSlashMiddleware:
    """Serves a path with one slash behind it as the path itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].endswith("/"):
            path: str = scope["path"][:-1]
            if path.removeprefix(scope.get("root_path", "")):
                raw_path = scope.get("raw_path") or path.encode()
                scope = {**scope, "path": path, "raw_path": raw_path.removesuffix(b"/")}
        await self.app(scope, receive, send)
