"""The whole server embedded in an agent's process, for the Claude Agent SDK or a ControlRouter."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server as LowLevelServer

from shared_context_server.auth.agent_names import check_name_form
from shared_context_server.auth.connection import Connection
from shared_context_server.auth.local_clients import connect_local_client
from shared_context_server.auth.middleware import current_connection
from shared_context_server.embed.entry import SdkServerEntry, make_entry
from shared_context_server.embed.per_run import ServerPerRun
from shared_context_server.environment import EnvironmentOwner
from shared_context_server.errors import ConfigurationError
from shared_context_server.models import Permission
from shared_context_server.prompts import INSTRUCTIONS
from shared_context_server.server import Server, open_server
from shared_context_server.settings import McpSessions, Settings, load_settings
from shared_context_server.transport.direct_calls import answer_calls_directly

READ_WRITE = ("read", "write")


@dataclass(frozen=True, slots=True)
class EmbeddedAgent:
    """The agent that makes all calls of an embedded server."""

    agent_id: str
    agent_type: str
    permissions: frozenset[Permission]


def make_agent(agent_id: str, agent_type: str, permissions: Collection[str]) -> EmbeddedAgent:
    """Check the values. Raises ConfigurationError for invalid names and permissions."""
    for field, name in (("agent_id", agent_id), ("agent_type", agent_type)):
        if wrong := check_name_form(name, field):
            raise ConfigurationError(wrong.message)
    known = {permission.value for permission in Permission}
    if isinstance(permissions, str) or not permissions or not set(permissions) <= known:
        raise ConfigurationError(f"permissions: must be one or more of {', '.join(sorted(known))}.")
    return EmbeddedAgent(agent_id, agent_type, frozenset(map(Permission, permissions)))


class EmbeddedServer(ServerPerRun):
    """Opens the whole server for each run. Several runs share only the data directory, like
    processes."""

    def __init__(self, name: str, settings: Settings, agent: EmbeddedAgent) -> None:
        super().__init__(name, instructions=INSTRUCTIONS)
        self._settings = settings
        self._agent = agent

    @asynccontextmanager
    async def open(self) -> AsyncIterator[LowLevelServer[Any]]:
        async with open_server(self._settings) as server:
            yield await bind_to_agent(server, self._agent)


class _Identify:
    """Middleware that sets the agent's connection for every message. A handler runs in the context of
    the sender, which is the host, so it would not see a variable that is set around `run`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def __call__(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        reset = current_connection.set(self._connection)
        try:
            return await call_next(ctx)
        finally:
            current_connection.reset(reset)


async def bind_to_agent(server: Server, agent: EmbeddedAgent) -> LowLevelServer[Any]:
    """The server's low-level MCP server. From now on this agent makes all its calls."""
    low_level: LowLevelServer[Any] = server.mcp._mcp_server
    answer_calls_directly(server.mcp, server.dispatcher)
    # Inserted before the fast path, which reads the connection.
    low_level.middleware.insert(0, _Identify(await connect_agent(server, agent)))
    return low_level


async def connect_agent(server: Server, agent: EmbeddedAgent) -> Connection:
    """The connection of this agent, with the server's API key, which this process can read.

    It is bound to the agent, its type and its permissions, so authenticate_agent gives no other
    identity and no more permissions. Raises ConfigurationError for names a new agent may not have.
    """
    connection = await connect_local_client(
        server.services.identity,
        agent_id=agent.agent_id,
        agent_type=agent.agent_type,
        is_admin=Permission.ADMIN in agent.permissions,
    )
    if connection.refused is not None:
        raise ConfigurationError(connection.refused.message)
    permissions = connection.caller.permissions & agent.permissions
    grant = connection.grant
    if grant is not None:
        grant = replace(
            grant,
            agent_id=agent.agent_id,
            agent_type=agent.agent_type,
            permissions=permissions,
        )
    return replace(
        connection, caller=replace(connection.caller, permissions=permissions), grant=grant
    )


def create_sdk_server(
    name: str = "shared_context",
    *,
    agent_id: str,
    agent_type: str = "claude",
    permissions: Collection[str] = READ_WRITE,
    data_dir: str | os.PathLike[str] | None = None,
    database_url: str | None = None,
) -> SdkServerEntry:
    """An `mcp_servers` entry with the whole server, for `ClaudeAgentOptions` or a ControlRouter.

    All calls are made by `agent_id`. Nothing is opened or written before the SDK starts the server.
    `data_dir` and `database_url` default to the settings SCS_DATA_DIR and SCS_DATABASE_URL, so that
    agents in several processes share one store. The host's `.env` and variables without the prefix
    SCS_ are not read. Raises ConfigurationError.
    """
    agent = make_agent(agent_id, agent_type, permissions)
    settings = load_settings(
        EnvironmentOwner.PROJECT,
        data_dir=None if data_dir is None else Path(data_dir),
        database_url=database_url,
        # One run is one session, and its agent is fixed.
        mcp_sessions=McpSessions.STATELESS,
        mcp_session_identity=False,
    )
    return make_entry(name, EmbeddedServer(name, settings, agent))
