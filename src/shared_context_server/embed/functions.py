"""An embedded MCP server whose tools are Python functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fastmcp import FastMCP

from shared_context_server.embed.entry import SdkServerEntry, make_entry


def tool_server(
    name: str, version: str = "1.0.0", tools: Iterable[Callable[..., Any]] = ()
) -> SdkServerEntry:
    """An `mcp_servers` entry whose tools are these functions, under their own names.

    Their signatures are the schemas, their docstrings the descriptions. They may be async. An
    exception becomes a result with isError and its text. Raises ValueError for two functions of the
    same name and for `*args`, TypeError for an object that is not a function.
    """
    mcp: FastMCP[Any] = FastMCP(name, version=version, on_duplicate="error")
    for function in tools:
        if not callable(function):  # FastMCP would treat a string as a name, and make no tool
            raise TypeError(f"{type(function).__name__} is not a function")
        mcp.tool(function)
    mcp._mcp_server.get_tool_input_schema = lambda _name: None
    return make_entry(name, mcp._mcp_server)
