"""Which route a request is for, as the layers in front of the app need to know."""

from __future__ import annotations

from starlette.types import Scope

MCP_PATH = "/mcp"
PROBE_PATHS = frozenset({"/health", "/ready"})  # orchestrators and load balancers ask them


def route_path(scope: Scope) -> str:
    """The path within the app, without slashes at its end."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")).rstrip("/") or "/"
