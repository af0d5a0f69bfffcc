"""Plain functions as tools of a server that lives in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fastmcp import FastMCP

from shared_context_server.embed.entry import SdkServerEntry, make_entry


def tool_server(
    name: str, version: str = "1.0.0", tools: Iterable[Callable[..., Any]] = ()
) -> SdkServerEntry:
    """An `mcp_servers` entry whose tools are these functions, under their own names.

    Their signatures are the schemas and their docstrings the descriptions; they may be async. What
    one raises becomes a result with isError that carries the text. Raises ValueError for two
    functions of one name and for `*args`, TypeError for what is no function.
    """
    mcp: FastMCP[Any] = FastMCP(name, version=version, on_duplicate="error")
    for function in tools:
        if not callable(function):  # FastMCP would take a text for a name, and make no tool
            raise TypeError(f"{type(function).__name__} is not a function")
        mcp.tool(function)
    mcp._mcp_server.get_tool_input_schema = lambda _name: None
    return make_entry(name, mcp._mcp_server)
