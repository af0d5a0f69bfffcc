"""The server as a FastMCP object, for FastMCP's own programs and for `fastmcp.Client(mcp)`.

`fastmcp run src/shared_context_server/app.py:mcp` is an example. Importing this module opens nothing:
FastMCP opens the server when it starts it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastmcp import FastMCP
from fastmcp.prompts import Prompt
from fastmcp.resources import Resource, ResourceTemplate
from fastmcp.server.providers.fastmcp_provider import FastMCPProvider
from fastmcp.tools import Tool
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

from shared_context_server import __version__
from shared_context_server.about import describe_server
from shared_context_server.auth.connection import Connection
from shared_context_server.auth.identity import Identity
from shared_context_server.auth.local_clients import connect_local_client
from shared_context_server.auth.middleware import current_connection
from shared_context_server.environment import EnvironmentOwner, read_client_names
from shared_context_server.errors import ConfigurationError
from shared_context_server.prompts import INSTRUCTIONS
from shared_context_server.server import SERVER_NAME, Server, open_server
from shared_context_server.settings import McpSessions, Settings, load_settings
from shared_context_server.transport.application import McpApplication
from shared_context_server.transport.direct_calls import answer_calls_directly

NAME_VARIABLES = ("SCS_AGENT_ID", "SCS_AGENT_TYPE")


class LazyServer(McpApplication):
    """A FastMCP server that opens the whole server for each of its lifespans.

    Over stdio and in memory all calls are made by the local user, as with `serve --transport stdio`.
    Over HTTP callers need credentials, as with `serve`.
    """

    def __init__(self) -> None:
        super().__init__(
            SERVER_NAME, instructions=INSTRUCTIONS, version=__version__, lifespan=_open_for
        )

    # FastMCP's inspector lists these without starting the server.

    async def list_tools(self, *, run_middleware: bool = True) -> Sequence[Tool]:
        async with self._lifespan_manager():
            return await super().list_tools(run_middleware=run_middleware)

    async def list_resources(self, *, run_middleware: bool = True) -> Sequence[Resource]:
        async with self._lifespan_manager():
            return await super().list_resources(run_middleware=run_middleware)

    async def list_resource_templates(
        self, *, run_middleware: bool = True
    ) -> Sequence[ResourceTemplate]:
        async with self._lifespan_manager():
            return await super().list_resource_templates(run_middleware=run_middleware)

    async def list_prompts(self, *, run_middleware: bool = True) -> Sequence[Prompt]:
        async with self._lifespan_manager():
            return await super().list_prompts(run_middleware=run_middleware)


class _Identify:
    """Middleware that sets the connection of each message."""

    def __init__(self, identity: Identity, local: Connection) -> None:
        self._identity = identity
        self._local = local

    async def __call__(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        request = ctx.request
        connection = self._local if request is None else await self._authenticate(request)
        reset = current_connection.set(connection)
        try:
            return await call_next(ctx)
        finally:
            current_connection.reset(reset)

    async def _authenticate(self, request: Any) -> Connection:
        """The connection of an HTTP request, whose sender may be any user of the machine."""
        headers = request.headers
        return await self._identity.authenticate_headers(
            authorization=headers.get("authorization"),
            api_key=headers.get("x-api-key"),
            agent_id=headers.get("x-agent-id"),
            agent_type=headers.get("x-agent-type"),
            address=request.client.host if request.client else "",
        )


@asynccontextmanager
async def _open_for(outer: FastMCP[Any]) -> AsyncIterator[None]:
    """Open the server and let `outer` answer as it does.

    FastMCP's transports keep the low-level server of `outer` from before it is started, so that one
    gets the handlers and the middleware of the opened server. Raises ConfigurationError.
    """
    settings = load_settings(
        EnvironmentOwner.PROJECT, mcp_sessions=McpSessions.STATELESS, mcp_session_identity=False
    )
    agent_id, agent_type = read_client_names()
    async with _open_in_task(settings) as server:
        local = await connect_local_client(
            server.services.identity,
            agent_id=agent_id,
            agent_type=agent_type,
            fields=NAME_VARIABLES,
        )
        if local.refused is not None:
            raise ConfigurationError(local.refused.message)
        answer_calls_directly(server.mcp, server.dispatcher)
        describe_server(outer, settings.website_url)
        provider = FastMCPProvider(server.mcp)  # for calls on `outer` itself
        outer.add_provider(provider)  # before `outer` gets the handlers of the skills extension
        low_level, opened = outer._mcp_server, server.mcp._mcp_server
        opened.middleware.insert(0, _Identify(server.services.identity, local))
        closed = (low_level._request_handlers, low_level._notification_handlers)
        middleware, get_schema = low_level.middleware, low_level.get_tool_input_schema
        low_level._request_handlers = opened._request_handlers
        low_level._notification_handlers = opened._notification_handlers
        low_level.middleware = opened.middleware
        low_level.get_tool_input_schema = opened.get_tool_input_schema
        try:
            yield
        finally:
            outer.providers.remove(provider)
            low_level._request_handlers, low_level._notification_handlers = closed
            low_level.middleware, low_level.get_tool_input_schema = middleware, get_schema
            server.stop()


@asynccontextmanager
async def _open_in_task(settings: Settings) -> AsyncIterator[Server]:
    """Open the server in a task of its own, because FastMCP ends a lifespan inside a cancel scope, where
    the task groups of an open server cannot be left."""
    opened: asyncio.Future[Server] = asyncio.get_running_loop().create_future()
    closing = asyncio.Event()

    async def hold_open() -> None:
        async with open_server(settings) as server:
            opened.set_result(server)
            await closing.wait()

    holding = asyncio.create_task(hold_open())
    try:
        await asyncio.wait((opened, holding), return_when=asyncio.FIRST_COMPLETED)
        if holding.done():
            await holding  # raises what kept the server from opening
        yield opened.result()
    finally:
        closing.set()
        if not opened.done():
            holding.cancel()
        with suppress(asyncio.CancelledError):
            await holding


mcp = LazyServer()

if __name__ == "__main__":  # fastmcp run -m shared_context_server.app
    mcp.run()
