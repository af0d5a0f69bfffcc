"""The `mcp_servers` entry of a server in the agent's own process."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from mcp.server.lowlevel import Server


class SdkServerEntry(TypedDict):
    """McpSdkServerConfig of the Claude Agent SDK. `instance` is the low-level server."""

    type: Literal["sdk"]
    name: str
    instance: Server[Any]


def make_entry(name: str, server: Server[Any]) -> SdkServerEntry:
    return SdkServerEntry(type="sdk", name=name, instance=server)
