"""MCP resources: sessions with their messages, memory, leases and tasks, an agent's memory, and the clock."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from fastmcp import FastMCP
from fastmcp.exceptions import FastMCPError
from fastmcp.resources import ResourceContent, ResourceResult
from fastmcp.server.dependencies import get_context
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, ReadResourceRequestParams
from pydantic import BaseModel

from shared_context_server import policy
from shared_context_server.errors import NotFound, SharedContextError
from shared_context_server.models import Caller, MemoryScope
from shared_context_server.services import clock, leases, memory, messages, sessions, tasks
from shared_context_server.services.context import Services
from shared_context_server.storage.contract import MessageQuery
from shared_context_server.tools.clock import sensors_result, time_result
from shared_context_server.tools.leases import lease_list
from shared_context_server.tools.mcp import SessionBindings, mcp_connection
from shared_context_server.tools.memory import memory_list, memory_value
from shared_context_server.tools.messages import MessageList, message_list
from shared_context_server.tools.sessions import SessionDetails, session_details
from shared_context_server.tools.tasks import task_list
from shared_context_server.tools.written import Written, write_json

JSON = "application/json"
NEWEST_SHOWN = 50
MAX_ENTRIES = 100


def add_resources(mcp: FastMCP[Any], services: Services, bindings: SessionBindings | None) -> None:
    """Add all resources to the server."""
    read = partial(_read, bindings)
    mcp.add_middleware(ResourceErrorMiddleware())

    @mcp.resource(
        "session://{session_id}",
        name="session",
        title="Session",
        mime_type=JSON,
        description="A session, its participants and its newest messages.",
    )
    async def session(session_id: str) -> ResourceResult:
        return await read(lambda caller: _session(services, caller, session_id))

    @mcp.resource(
        "session://{session_id}/messages",
        name="session-messages",
        title="Messages of a session",
        mime_type=JSON,
        description="The newest messages of a session.",
    )
    async def session_messages(session_id: str) -> ResourceResult:
        return await read(lambda caller: _messages(services, caller, session_id))

    @mcp.resource(
        "session://{session_id}/memory",
        name="session-memory",
        title="Shared memory of a session",
        mime_type=JSON,
        description="Keys and versions of a session's shared memory.",
    )
    async def session_memory(session_id: str) -> ResourceResult:
        return await read(lambda caller: _session_memory(services, caller, session_id))

    @mcp.resource(
        "session://{session_id}/memory/{key}",
        name="session-memory-value",
        title="Value in a session's shared memory",
        mime_type=JSON,
        description="A value of a session's shared memory, with its version.",
    )
    async def session_memory_value(session_id: str, key: str) -> ResourceResult:
        return await read(lambda caller: _session_value(services, caller, session_id, key))

    @mcp.resource(
        "session://{session_id}/leases",
        name="session-leases",
        title="Leases of a session",
        mime_type=JSON,
        description="The leases that are held in a session.",
    )
    async def session_leases(session_id: str) -> ResourceResult:
        return await read(lambda caller: _session_leases(services, caller, session_id))

    @mcp.resource(
        "session://{session_id}/tasks",
        name="session-tasks",
        title="Tasks of a session",
        mime_type=JSON,
        description="The unfinished tasks of a session.",
    )
    async def session_tasks(session_id: str) -> ResourceResult:
        return await read(lambda caller: _session_tasks(services, caller, session_id))

    @mcp.resource(
        "agent://{agent_id}/memory",
        name="agent-memory",
        title="Your private memory",
        mime_type=JSON,
        description="Keys and versions of your own private memory.",
    )
    async def agent_memory(agent_id: str) -> ResourceResult:
        return await read(lambda caller: _agent_memory(services, caller, agent_id))

    @mcp.resource(
        "agent://{agent_id}/memory/{key}",
        name="agent-memory-value",
        title="Value in your private memory",
        mime_type=JSON,
        description="A value of your own private memory, with its version.",
    )
    async def agent_memory_value(agent_id: str, key: str) -> ResourceResult:
        return await read(lambda caller: _agent_value(services, caller, agent_id, key))

    @mcp.resource(
        "clock://now",
        name="clock",
        title="Clock",
        mime_type=JSON,
        description="What get_time answers.",
    )
    async def clock() -> ResourceResult:
        return await read(lambda caller: _clock(services, caller))

    @mcp.resource(
        "sensors://all",
        name="sensors",
        title="Sensors",
        mime_type=JSON,
        description="What get_all_sensors answers.",
    )
    async def sensors() -> ResourceResult:
        return await read(lambda caller: _sensors(services, caller))


class ReadRefused(FastMCPError):
    """Wraps an error for FastMCP, which would log any other exception as a crash."""

    def __init__(self, error: SharedContextError) -> None:
        super().__init__(error.message, log_level=logging.DEBUG)
        self.error = error


class ResourceErrorMiddleware(Middleware):
    """Answers a refused read with an MCP error whose data is the common error shape.

    A missing resource is INVALID_PARAMS with the uri in its data (MCP 2026-07-28, SEP-2164).
    """

    async def on_read_resource(
        self,
        context: MiddlewareContext[ReadResourceRequestParams],
        call_next: CallNext[ReadResourceRequestParams, ResourceResult],
    ) -> ResourceResult:
        try:
            return await call_next(context)
        except ReadRefused as exc:
            uri = str(context.message.uri)
            if isinstance(exc.error, NotFound):
                message = f"Resource not found: {uri!r}"
                raise MCPError(INVALID_PARAMS, message, {"uri": uri}) from exc
            raise MCPError(INVALID_PARAMS, exc.error.message, exc.error.body()) from exc


async def _session(services: Services, caller: Caller, session_id: str) -> Written[SessionDetails]:
    return session_details(await sessions.get_session(services, caller, session_id))


async def _messages(services: Services, caller: Caller, session_id: str) -> Written[MessageList]:
    query = MessageQuery(limit=NEWEST_SHOWN)
    page = await messages.get_messages(services, caller, session_id, query)
    return message_list(page, query)


async def _session_memory(services: Services, caller: Caller, session_id: str) -> BaseModel:
    return await _memory_keys(services, caller, session_id, MemoryScope.SHARED)


async def _session_leases(services: Services, caller: Caller, session_id: str) -> BaseModel:
    return lease_list(await leases.list_leases(services, caller, session_id))


async def _session_tasks(services: Services, caller: Caller, session_id: str) -> BaseModel:
    return task_list(await tasks.list_unfinished(services, caller, session_id))


async def _agent_memory(services: Services, caller: Caller, agent_id: str) -> BaseModel:
    policy.require_own_memory(caller, agent_id)
    return await _memory_keys(services, caller, None, MemoryScope.PRIVATE)


async def _session_value(
    services: Services, caller: Caller, session_id: str, key: str
) -> BaseModel:
    address = policy.memory_address(caller, key, session_id, MemoryScope.SHARED)
    return memory_value(await memory.get_memory(services, caller, address))


async def _agent_value(services: Services, caller: Caller, agent_id: str, key: str) -> BaseModel:
    policy.require_own_memory(caller, agent_id)
    address = policy.memory_address(caller, key, None, MemoryScope.PRIVATE)
    return memory_value(await memory.get_memory(services, caller, address))


async def _memory_keys(
    services: Services, caller: Caller, session_id: str | None, scope: MemoryScope
) -> BaseModel:
    return memory_list(
        await memory.list_memory(
            services,
            caller,
            session_id=session_id,
            scope=scope,
            prefix="",
            limit=MAX_ENTRIES,
            cursor=None,
        )
    )


async def _clock(services: Services, caller: Caller) -> BaseModel:
    return time_result(clock.get_time(services, caller))


async def _sensors(services: Services, caller: Caller) -> BaseModel:
    return sensors_result(clock.get_sensors(services, caller))


async def _read(
    bindings: SessionBindings | None, use: Callable[[Caller], Awaitable[BaseModel | Written[Any]]]
) -> ResourceResult:
    """The JSON of the result of `use`. Raises ReadRefused for its errors."""
    connection = await mcp_connection(get_context(), bindings)
    try:
        if connection.refused is not None:
            raise connection.refused
        found = await use(connection.caller)
    except SharedContextError as exc:
        raise ReadRefused(exc) from exc
    return ResourceResult([ResourceContent(write_json(found).decode(), mime_type=JSON)])
