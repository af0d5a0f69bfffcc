"""Serve the registry's tools through FastMCP."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cachetools import TTLCache
from fastmcp import FastMCP
from fastmcp.exceptions import NotFoundError
from fastmcp.server.context import Context, _get_client_log_level
from fastmcp.server.dependencies import FastMCPRequestContext, get_context
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.telemetry import suppress_fastmcp_telemetry
from fastmcp.tools import Tool as FastMCPTool
from fastmcp.tools import ToolResult
from mcp.server.connection import allowed_log_levels
from mcp.server.context import CallNext as SdkCallNext
from mcp.server.context import HandlerResult, ServerRequestContext
from mcp_types import (
    LOG_LEVEL_META_KEY,
    CallToolRequestParams,
    LoggingMessageNotification,
    LoggingMessageNotificationParams,
    TextContent,
    ToolAnnotations,
)
from mcp_types import Tool as McpToolModel
from mcp_types.version import LATEST_MODERN_VERSION, MODERN_PROTOCOL_VERSIONS
from pydantic import PrivateAttr
from pydantic_core import from_json

from shared_context_server.auth.connection import Connection
from shared_context_server.auth.identity import Identity
from shared_context_server.auth.instances import read_meta
from shared_context_server.auth.middleware import current_connection
from shared_context_server.auth.middleware.authentication_requests import AUTHENTICATE
from shared_context_server.errors import InvalidArgument, Unauthenticated
from shared_context_server.tools.dispatch import (
    Dispatcher,
    Outcome,
    failure,
    require_strict_json,
)
from shared_context_server.tools.registry import Hints, Tool

LOGGER = "shared_context_server"  # of log messages to clients
UNREAD_META = "shared-context/unread"
MAX_BOUND_SESSIONS = 10_000
BOUND_FOR_S = 3600.0


class SessionBindings:
    """The token of each MCP session whose client has authenticated in it.

    Only for MCP_SESSION_IDENTITY=true, because the protocol says that sessions must not
    authenticate. A binding ends BOUND_FOR_S after it was made. The token is checked at each use, so
    a binding also ends when the token expires or is revoked.
    """

    def __init__(self, identity: Identity, *, timer: Callable[[], float] = time.monotonic) -> None:
        self._identity = identity
        self._tokens: TTLCache[str, str] = TTLCache(MAX_BOUND_SESSIONS, BOUND_FOR_S, timer)

    async def connect(self, session_id: str, connection: Connection) -> Connection:
        """Return the connection with the session's token, if it has one."""
        token = self._tokens.get(session_id)
        if token is None:
            return connection
        try:
            caller = await self._identity.resolve(token, connection)
        except Unauthenticated as exc:
            return replace(connection, refused=exc.with_traceback(None))
        return replace(connection, caller=caller, is_named=True)

    def bind(self, session_id: str, token: str) -> None:
        self._tokens[session_id] = token


class McpTool(FastMCPTool):
    """A registry tool for FastMCP: it has the registry's schema and calls the dispatcher.

    It has no output schema. Clients on the TypeScript SDK 1.x check errors against it too, and then
    show their own message instead of the server's error.
    """

    _dispatcher: Dispatcher = PrivateAttr()
    _bindings: SessionBindings | None = PrivateAttr(default=None)

    @classmethod
    def of(
        cls, tool: Tool[Any, Any], dispatcher: Dispatcher, bindings: SessionBindings | None
    ) -> McpTool:
        made = cls(
            name=tool.name,
            title=tool.title,
            description=tool.description,
            parameters=tool.input_schema,
            output_schema=None,
            annotations=_annotations(tool.hints),
        )
        made._dispatcher = dispatcher
        made._bindings = bindings
        return made

    def to_mcp_tool(self, **overrides: Any) -> McpToolModel:
        """As FastMCP does, but without its own _meta, which would make every tools/list longer."""
        return super().to_mcp_tool(**{"_meta": None} | overrides)

    async def run(self, arguments: dict[str, Any]) -> ToolResult:
        try:
            require_strict_json(arguments)
        except InvalidArgument as exc:
            return tool_result(failure(exc))
        context = get_context()
        connection = await mcp_connection(context, self._bindings)
        outcome = await self._dispatcher.call(
            self.name, arguments, connection, _Waiting(self.name, context).report
        )
        if self.name == AUTHENTICATE and self._bindings is not None and not outcome.is_error:
            self._bindings.bind(context.session_id, from_json(outcome.json())["token"])
        return tool_result(outcome)


def _annotations(hints: Hints) -> ToolAnnotations:
    """The hints of the protocol. Directories ask for the first three of each tool, also where they are
    the default. The last means nothing for a tool that only reads, and is false by default."""
    is_stated = hints.idempotent and not hints.read_only
    return ToolAnnotations(
        read_only_hint=hints.read_only,
        destructive_hint=hints.destructive,
        open_world_hint=False,
        idempotent_hint=True if is_stated else None,
    )


class _Waiting:
    """Tells the client that a call is still waiting: as progress, and as a log message.

    Log messages are sent only to clients that have asked for them: from 2026-07-28 on in the request,
    before with logging/setLevel on a connection that the server keeps.
    """

    def __init__(self, tool: str, context: Context) -> None:
        self._tool = tool
        self._context = context

    async def report(self, waited_s: float, at_most_s: float) -> None:
        await self._context.report_progress(waited_s, at_most_s)
        request = self._context.request_context
        if request is None or not _wants_info(request):
            return
        text = f"{self._tool} is waiting: {waited_s:.0f} of at most {at_most_s:.0f} s."
        await request.session.send_notification(
            LoggingMessageNotification(
                params=LoggingMessageNotificationParams(
                    level="info", logger=LOGGER, data={"msg": text}
                )
            ),
            related_request_id=request.request_id,
        )


def _wants_info(request: FastMCPRequestContext) -> bool:
    """Whether the client has asked for log messages of the level info."""
    if request.protocol_version in MODERN_PROTOCOL_VERSIONS:
        asked = (request.meta or {}).get(LOG_LEVEL_META_KEY)
    else:
        asked = _get_client_log_level(request.session)
    return "info" in allowed_log_levels(LATEST_MODERN_VERSION, {LOG_LEVEL_META_KEY: asked})


async def mcp_connection(context: Context, bindings: SessionBindings | None) -> Connection:
    """Return the caller's connection over MCP: from the request's headers, else from its MCP
    session's token, with the names in the request's _meta."""
    connection = current_connection.get()
    if bindings is not None and connection.caller.is_anonymous:
        connection = await bindings.connect(context.session_id, connection)
    else:
        connection = connection.with_client_name(_client_name(context))
    request = context.request_context
    return connection if request is None else read_meta(connection, request.meta)


async def low_level_connection(
    context: ServerRequestContext[Any, Any], bindings: SessionBindings | None
) -> Connection:
    """Do the same for methods that the SDK's own server answers without FastMCP."""
    session, connection = context.session, current_connection.get()
    session_id = session._connection.session_id
    if bindings is not None and connection.caller.is_anonymous and session_id is not None:
        connection = await bindings.connect(session_id, connection)
    else:
        params = session.client_params
        name = None if params is None else params.client_info.name
        connection = connection.with_client_name(name)
    return read_meta(connection, context.meta)


def _client_name(context: Context) -> str | None:
    params = context.session.client_params if context.request_context else None
    return None if params is None else params.client_info.name


def tool_result(outcome: Outcome) -> ToolResult:
    """Return the outcome as JSON text and as structured content, with unread mentions as a second
    text and in _meta. Errors keep their shape."""
    text = outcome.json()
    content = [TextContent(type="text", text=text.decode())]
    if outcome.unread is not None:
        content.append(TextContent(type="text", text=outcome.unread.text()))
    return ToolResult(
        content=content,
        structured_content=from_json(text),
        meta=None if outcome.unread is None else {UNREAD_META: outcome.unread.meta()},
        is_error=outcome.is_error,
    )


class UnknownToolMiddleware(Middleware):
    """Answers calls of unknown tools with the one error shape."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def on_call_tool(
        self,
        context: MiddlewareContext[CallToolRequestParams],
        call_next: CallNext[CallToolRequestParams, ToolResult],
    ) -> ToolResult:
        try:
            return await call_next(context)
        except NotFoundError:
            connection = current_connection.get()
            outcome = await self._dispatcher.call(context.message.name, {}, connection)
            return tool_result(outcome)


class OneSpan:
    """Middleware of the SDK's server: keeps FastMCP from making spans of tool calls, because the
    dispatcher makes them. FastMCP's spans of other methods are left out only if sessions authenticate,
    because they contain the session's id."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._traces = dispatcher.traces
        self._is_always = dispatcher.services.settings.mcp_session_identity

    async def __call__(
        self, ctx: ServerRequestContext[Any, Any], call_next: SdkCallNext
    ) -> HandlerResult:
        is_ours = ctx.method == "tools/call" or self._is_always
        if not is_ours or self._traces.find_tracer() is None:
            return await call_next(ctx)
        with suppress_fastmcp_telemetry():
            return await call_next(ctx)


def add_tools(mcp: FastMCP[Any], dispatcher: Dispatcher) -> SessionBindings | None:
    """Serve every tool of the dispatcher on `mcp`; return the session bindings, if they are
    enabled."""
    services = dispatcher.services
    is_bound = services.settings.mcp_session_identity
    bindings = SessionBindings(services.identity) if is_bound else None
    for tool in dispatcher.tools.values():
        mcp.add_tool(McpTool.of(tool, dispatcher, bindings))
    mcp.add_middleware(UnknownToolMiddleware(dispatcher))
    mcp._mcp_server.middleware.insert(0, OneSpan(dispatcher))
    # Without this every modern tools/call lists all tools first, to find parameters that are
    # mirrored in x-mcp-header headers. No tool of ours declares one.
    mcp._mcp_server.get_tool_input_schema = lambda _name: None
    return bindings
