"""The composition root: opens all parts of a server on one exit stack, which closes them in reverse."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import jwt  # noqa: F401 - tokens are read on the event loop, which an import would hold
from fastmcp import FastMCP
from fastmcp.skills import Skill
from fastmcp.skills.provider import SkillCatalogProvider
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from shared_context_server import __version__, skills
from shared_context_server.about import describe_server
from shared_context_server.auth.client_sessions import ClientSessions
from shared_context_server.auth.middleware import protect
from shared_context_server.auth.middleware.paths import MCP_PATH
from shared_context_server.auth.middleware.request_ids import RequestIds
from shared_context_server.completions import add_completions
from shared_context_server.observability.history import SAMPLE_INTERVAL_S
from shared_context_server.observability.logs import get_logger
from shared_context_server.observability.metrics import Metrics
from shared_context_server.observability.traces import Traces, open_traces
from shared_context_server.parts import open_parts, run_every
from shared_context_server.prompts import INSTRUCTIONS, add_prompts
from shared_context_server.resources import add_resources
from shared_context_server.rest.access import AccessLog
from shared_context_server.rest.calls import ToolEndpoint
from shared_context_server.rest.errors import exception_handlers
from shared_context_server.rest.hot_paths import HotPaths
from shared_context_server.rest.probes import refresh_gauges
from shared_context_server.rest.routes import METRICS_PATH, PUBLIC_PATHS, make_routes
from shared_context_server.services import freed_memory
from shared_context_server.services.context import Services
from shared_context_server.services.retention import delete_idle_sessions, remove_old_messages
from shared_context_server.settings import LogLevel, McpSessions, Settings
from shared_context_server.steady_time import utc_now
from shared_context_server.storage import StorageId
from shared_context_server.subscriptions import add_subscriptions
from shared_context_server.tools.dispatch import Dispatcher
from shared_context_server.tools.mcp import add_tools
from shared_context_server.transport.application import McpApplication
from shared_context_server.transport.http import McpEndpoint
from shared_context_server.transport.lane import DirectLane
from shared_context_server.transport.mcp_sessions import McpSessionLimits
from shared_context_server.transport.parameters import name_wrong_parameters
from shared_context_server.ui.headers import UiHeaders
from shared_context_server.ui.late import make_late_routes

SERVER_NAME = "shared-context-server"
PURGE_INTERVAL_S = 60.0
VACUUM_INTERVAL_S = 60.0
RETENTION_INTERVAL_S = 600.0
GAUGES_INTERVAL_S = 5.0  # for workers; a single process refreshes its gauges when they are read

_log = get_logger("server")


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: `app` for HTTP, `mcp` for stdio and embedding, `dispatcher` for tool calls."""

    settings: Settings
    services: Services
    dispatcher: Dispatcher
    metrics: Metrics
    mcp: FastMCP[Any]
    app: ASGIApp

    def stop(self) -> None:
        """Answer all waiting calls, because a shutdown waits for them. Other calls are still served."""
        self.services.bus.close()
        self.services.store.maintenance.begin_closing()
        if self.services.search_process is not None:
            self.services.search_process.begin_closing()


@asynccontextmanager
async def open_server(
    settings: Settings,
    expected: StorageId | None = None,
    *,
    has_own_process: bool = False,
    traces: Traces | None = None,
) -> AsyncIterator[Server]:
    """Open a server for a with block.

    At the first start this creates the keys and the database, unless a storage is `expected`. If it
    `has_own_process`, not that of a client or of another program, it may start further ones. `traces`: by default
    calls are traced if the process has a tracer provider. Raises ConfigurationError if the server cannot run with this configuration.
    """
    metrics = Metrics()
    opened = open_parts(
        settings, expected, observer=metrics, traces=traces, has_own_process=has_own_process
    )
    async with opened as parts, AsyncExitStack() as stack:
        settings, services, dispatcher = parts.settings, parts.services, parts.dispatcher
        services.limits.on_failure = metrics.count_failed_authentication
        services.limits.on_limited = services.slots.on_limited = metrics.count_limited
        await stack.enter_async_context(run_every(PURGE_INTERVAL_S, partial(purge, services)))
        shrink = partial(vacuum, services, metrics)
        await stack.enter_async_context(run_every(VACUUM_INTERVAL_S, shrink))
        if has_own_process:
            trimming = run_every(freed_memory.INTERVAL_S, freed_memory.release_freed_memory)
            await stack.enter_async_context(trimming)
        if (settings.session_retention_days, settings.message_retention_days) != (None, None):
            retain = partial(apply_retention, services, metrics)
            await stack.enter_async_context(run_every(RETENTION_INTERVAL_S, retain))
        if metrics.is_shared:
            refresh = partial(refresh_gauges, services, metrics)
            await stack.enter_async_context(run_every(GAUGES_INTERVAL_S, refresh))
        services.history.begin(await asyncio.to_thread(metrics.collect))
        sample = partial(sample_metrics, services, metrics)
        await stack.enter_async_context(run_every(SAMPLE_INTERVAL_S, sample))
        mcp = make_mcp(dispatcher)
        app = await make_app(stack, mcp, dispatcher, metrics, make_lane(mcp, dispatcher))
        yield Server(settings, services, dispatcher, metrics, mcp, app)
        services.store.maintenance.begin_closing()


def make_mcp(dispatcher: Dispatcher) -> FastMCP[Any]:
    """The MCP server with all tools, resources, prompts, completions and skills."""
    mcp = McpApplication(
        SERVER_NAME,
        instructions=INSTRUCTIONS,
        version=__version__,
        mask_error_details=True,
        on_duplicate="error",
    )
    bindings = add_tools(mcp, dispatcher)
    add_resources(mcp, dispatcher.services, bindings)
    add_subscriptions(mcp, dispatcher.services, bindings)
    add_prompts(mcp)
    skill = Skill.from_package(skills.__name__, skills.SKILL)
    mcp.add_provider(SkillCatalogProvider([skill]))
    add_completions(mcp, dispatcher.services, bindings)
    name_wrong_parameters(mcp)
    describe_server(mcp, dispatcher.services.settings.website_url)
    return mcp


def make_lane(mcp: FastMCP[Any], dispatcher: Dispatcher) -> DirectLane:
    """The direct lane of this MCP server."""
    return DirectLane(dispatcher, mcp._mcp_server.server_info_stamp)


async def purge(services: Services) -> None:
    """Remove data that has expired, or is older than its retention."""
    settings, now = services.settings, utc_now()
    await services.store.maintenance.purge(
        expired_before=now,
        idempotency_before=now - timedelta(hours=settings.idempotency_retention_hours),
        audit_before=now - timedelta(days=settings.audit_retention_days),
    )


async def vacuum(services: Services, metrics: Metrics) -> None:
    """Give the space of deleted rows back to the file system, if there is much of it, and count it."""
    if released := await services.store.maintenance.release_free_space():
        metrics.vacuumed_bytes.inc(released)
        _log.info("vacuumed", released_bytes=released)


async def sample_metrics(services: Services, metrics: Metrics) -> None:
    """Add the present metrics to the history of the last hour."""
    if not metrics.is_shared:  # else they are refreshed more often
        await refresh_gauges(services, metrics)
    services.history.add(await asyncio.to_thread(metrics.collect), utc_now())


async def apply_retention(services: Services, metrics: Metrics) -> None:
    """Delete idle sessions and remove old messages, and count them."""
    async for session_id in delete_idle_sessions(services):
        metrics.expired_sessions.inc()
        _log.info("session expired", session_id=session_id)
    async for session_id, removed in remove_old_messages(services):
        metrics.expired_messages.inc(removed)
        _log.debug("messages expired", session_id=session_id, removed=removed)


async def make_app(
    stack: AsyncExitStack,
    mcp: FastMCP[Any],
    dispatcher: Dispatcher,
    metrics: Metrics,
    lane: DirectLane | None,
) -> ASGIApp:
    """The ASGI app with all routes. Its resources are opened on the stack."""
    settings = dispatcher.services.settings
    is_stateless = settings.mcp_sessions is McpSessions.STATELESS
    streaming = await _start_manager(stack, mcp, settings, json_response=False)
    json_only = await _start_manager(stack, mcp, settings, json_response=True)
    limits = McpSessionLimits(
        (streaming, json_only),
        by_caller=settings.max_mcp_sessions_per_caller,
        by_key=max(1, settings.max_mcp_sessions * 3 // 4),
        total=settings.max_mcp_sessions,
        note_limited=metrics.count_limited,
    )
    endpoint = McpEndpoint(
        streaming,
        json_only,
        sessions=_client_sessions(settings) if is_stateless else None,
        limits=None if is_stateless else limits,
        lane=lane if is_stateless else None,
    )
    # In stateless mode there is no stream to GET and no session to DELETE.
    methods = {"POST"} if is_stateless else {"GET", "POST", "DELETE"}
    mcp_route = Route(MCP_PATH, endpoint)
    mcp_route.methods = methods  # Starlette would add HEAD, which MCP does not have
    routes = [
        mcp_route,
        *make_routes(dispatcher, metrics),
        *make_late_routes(dispatcher),
    ]
    starlette = Starlette(routes=routes, exception_handlers=exception_handlers())
    starlette.router.redirect_slashes = False  # auth.middleware removes a slash at the end
    app = protect(
        HotPaths(starlette, mcp=endpoint, tools=ToolEndpoint(dispatcher)),
        settings=settings,
        identity=dispatcher.services.identity,
        limits=dispatcher.services.limits,
        public_paths=PUBLIC_PATHS | ({METRICS_PATH} if settings.metrics_public else set()),
    )
    app = UiHeaders(app)
    return RequestIds(AccessLog(app) if settings.log_level is LogLevel.DEBUG else app)


def _client_sessions(settings: Settings) -> ClientSessions:
    assert settings.jwt_secret_key is not None  # Identity requires it
    secret = settings.jwt_secret_key.get_secret_value().encode()
    return ClientSessions(secret, settings.previous_secrets)


async def _start_manager(
    stack: AsyncExitStack, mcp: FastMCP[Any], settings: Settings, *, json_response: bool
) -> StreamableHTTPSessionManager:
    manager = StreamableHTTPSessionManager(
        app=mcp._mcp_server,
        json_response=json_response,
        stateless=settings.mcp_sessions is McpSessions.STATELESS,
        # Host and Origin are checked once, for all routes, in auth.middleware.
        security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        max_request_body_size=settings.max_body_bytes,
        session_idle_timeout=settings.mcp_session_idle,
        max_sessions=settings.max_mcp_sessions,
    )
    await stack.enter_async_context(manager.run())
    return manager


async def _refuse(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise RuntimeError("The ASGI server must run the lifespan before it sends requests.")


class LifespanApp:
    """The ASGI application for uvicorn: opens the server at start-up, closes it at shutdown."""

    def __init__(self, settings: Settings, expected: StorageId | None = None) -> None:
        self._settings = settings
        self._expected = expected
        self._serve: ASGIApp = _refuse
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Server | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._serve_lifespan(receive, send)
        else:
            await self._serve(scope, receive, send)

    def stop(self) -> None:
        """Begin the shutdown. Can be called from a signal handler and from any thread."""
        if self._server is not None and self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._server.stop)

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with (
                open_traces() as traces,
                open_server(
                    self._settings, self._expected, has_own_process=True, traces=traces
                ) as server,
            ):
                self._serve = server.app
                self._server, self._loop = server, asyncio.get_running_loop()
                # Imported modules are never freed. Without this, each full collection scans them,
                # which causes most of the slowest calls.
                gc.collect()
                gc.freeze()
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as exc:  # noqa: BLE001 - uvicorn prints the message and exits with 3
            failed = "startup" if self._serve is _refuse else "shutdown"
            _log.exception("server failed", at=failed)
            await send({"type": f"lifespan.{failed}.failed", "message": str(exc)})
        else:
            await send({"type": "lifespan.shutdown.complete"})
