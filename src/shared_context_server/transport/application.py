"""FastMCP's server without the store of its clients' session state, which nothing here uses."""

from __future__ import annotations

from typing import Any, Final

from fastmcp import FastMCP


class McpApplication(FastMCP[Any]):
    """FastMCP asks its store of session state at every list which components a session has hidden.

    No tool, resource or prompt of this server hides any. FastMCP's own store is made at the first
    list, with packages (key_value, beartype) whose import holds the event loop for half a second
    and takes 17 MB for good.
    """

    @property
    def _state_store(self) -> Any:
        return _NO_STATE


class _NoState:
    async def get(self, key: str) -> None:
        """No session has stored anything."""


_NO_STATE: Final = _NoState()
