"""Paths that the layers in front of the app treat differently."""

from __future__ import annotations

MCP_PATH = "/mcp"
PROBE_PATHS = frozenset({"/health", "/ready"})  # orchestrators and load balancers ask them
