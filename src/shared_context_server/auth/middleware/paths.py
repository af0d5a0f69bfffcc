"""Paths that the middleware treats differently."""

from __future__ import annotations

MCP_PATH = "/mcp"
PROBE_PATHS = frozenset({"/health", "/ready"})  # orchestrators and load balancers ask them
UI_PATH = "/ui"  # the dashboard: its forms have a token of their own against other sites
