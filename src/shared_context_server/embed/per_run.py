"""A base class of MCP servers that can run several times, also at the same time."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractAsyncContextManager
from typing import Any

from mcp.server.lowlevel import Server as LowLevelServer

from shared_context_server import __version__


class ServerPerRun(LowLevelServer[Any]):
    """A low-level MCP server that opens a new server for each `run`, and closes it at the end."""

    def __init__(self, name: str, *, instructions: str | None = None) -> None:
        super().__init__(name, version=__version__, instructions=instructions)

    @abstractmethod
    def open(self) -> AbstractAsyncContextManager[LowLevelServer[Any]]:
        """The server of one run."""

    async def run(
        self,
        read_stream: Any,
        write_stream: Any,
        initialization_options: Any = None,
        raise_exceptions: bool = False,
    ) -> None:
        """Serve one client until its stream ends. `initialization_options` is ignored: the server's
        features are known only after it is opened."""
        async with self.open() as served:
            options = served.create_initialization_options()
            options = options.model_copy(update={"server_name": self.name})
            await served.run(read_stream, write_stream, options, raise_exceptions)
