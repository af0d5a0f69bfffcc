"""/mcp/ for /mcp: clients are configured with both, and not all of them follow a redirect."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class McpPathMiddleware:
    """Serves `path` with a slash behind it as `path` itself."""

    def __init__(self, app: ASGIApp, path: str = "/mcp") -> None:
        self.app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].endswith("/"):
            root = scope.get("root_path", "")
            if scope["path"] == f"{root}{self._path}/":
                path = scope["path"][:-1]
                scope = {**scope, "path": path, "raw_path": path.encode()}
        await self.app(scope, receive, send)
