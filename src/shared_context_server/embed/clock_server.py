"""An embedded MCP server with only the clock and sensor tools, without storage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from fastmcp import FastMCP
from fastmcp.tools import Tool as FastMCPTool
from fastmcp.tools import ToolResult
from mcp.server.lowlevel import Server as LowLevelServer
from mcp_types import ToolAnnotations
from pydantic import PrivateAttr

from shared_context_server import __version__
from shared_context_server.auth.connection import Connection
from shared_context_server.clock import ClockReader, SensorReader
from shared_context_server.clock.owners import find_trusted_users
from shared_context_server.clock.segment import check_prefix
from shared_context_server.embed.entry import SdkServerEntry, make_entry
from shared_context_server.embed.per_run import ServerPerRun
from shared_context_server.errors import ConfigurationError, InvalidArgument, SharedContextError
from shared_context_server.models import Caller, Permission
from shared_context_server.services.context import Services
from shared_context_server.tools.clock import TOOLS
from shared_context_server.tools.dispatch import Outcome, failure
from shared_context_server.tools.mcp import tool_result
from shared_context_server.tools.registry import Call, Tool

# No authentication: everyone on the machine can read the time from shared memory.
_READER = Caller("embedded", "generic", frozenset({Permission.READ}), key_id="embedded")
# Without auth_token, which all tools of the whole server have.
_NO_PARAMETERS = {"type": "object", "properties": {}}
_CALL = Call(_READER, Connection(_READER, is_named=True))


@dataclass(frozen=True, slots=True)
class Readers:
    """The services that the clock tools use."""

    clock: ClockReader
    sensors: SensorReader


class ClockTool(FastMCPTool):
    """A clock tool of the registry, called without the rest of the server."""

    _tool: Tool[Any, Any] = PrivateAttr()
    _readers: Readers = PrivateAttr()

    @classmethod
    def of(cls, tool: Tool[Any, Any], readers: Readers) -> ClockTool:
        made = cls(
            name=tool.name,
            description=tool.description,
            parameters=_NO_PARAMETERS,
            output_schema=None,  # as in the whole server
            annotations=ToolAnnotations(
                read_only_hint=True, idempotent_hint=True, open_world_hint=False
            ),
        )
        made._tool, made._readers = tool, readers
        return made

    async def run(self, arguments: dict[str, Any]) -> ToolResult:
        try:
            for name in arguments:
                raise InvalidArgument(f"Unknown argument {name[:100]!r}.", field=name[:100])
            # The handlers of the four tools use only the two readers.
            services = cast("Services", self._readers)
            result = await self._tool.handler(services, _CALL, self._tool.arguments())
            outcome = Outcome(200, result)
        except SharedContextError as exc:
            outcome = failure(exc)
        return tool_result(outcome)


class ClockServer(ServerPerRun):
    """Creates its readers at each run, because a closed reader cannot be used again."""

    def __init__(self, name: str, prefix: str, owner: str | int | None) -> None:
        super().__init__(name)
        self._prefix = prefix
        self._owner = owner

    @asynccontextmanager
    async def open(self) -> AsyncIterator[LowLevelServer[Any]]:
        with (
            ClockReader(self._prefix, owner=self._owner) as clock,
            SensorReader(self._prefix, owner=self._owner) as sensors,
        ):
            yield make_server(self.name, Readers(clock, sensors))


def make_server(name: str, readers: Readers) -> LowLevelServer[Any]:
    mcp: FastMCP[Any] = FastMCP(name, version=__version__)
    for tool in TOOLS:
        mcp.add_tool(ClockTool.of(tool, readers))
    # As in the whole server: otherwise every call of the stateless versions would list the tools.
    mcp._mcp_server.get_tool_input_schema = lambda _name: None
    return mcp._mcp_server


def create_clock_server(
    name: str = "clock", *, prefix: str = "", owner: str | int | None = None
) -> SdkServerEntry:
    """An `mcp_servers` entry with only get_time and the sensor tools, without storage and identity.

    It reads the segments that `shared-context-server clock --prefix …` writes. Without that daemon
    the time is the system clock's, and the sensors answer CLOCK_NOT_RUNNING. `owner` is a user (name
    or number) whose daemon is trusted, besides this process's user and root. Raises
    ConfigurationError for an invalid prefix or an unknown user.
    """
    try:
        check_prefix(prefix)
        find_trusted_users(owner)
    except ValueError as exc:
        raise ConfigurationError(str(exc)) from exc
    return make_entry(name, ClockServer(name, prefix, owner))
