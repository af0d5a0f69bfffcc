"""The composition root: opens all parts of a server on one exit stack, which closes them in reverse."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

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
from shared_context_server.auth.identity import Identity
from shared_context_server.auth.key_lives import KeyUses
from shared_context_server.auth.limits import RateLimits
from shared_context_server.auth.middleware import protect
from shared_context_server.auth.middleware.paths import MCP_PATH
from shared_context_server.auth.middleware.request_ids import RequestIds
from shared_context_server.auth.secrets import ensure_secrets
from shared_context_server.clock import ClockReader, SensorReader
from shared_context_server.completions import add_completions
from shared_context_server.errors import SharedContextError
from shared_context_server.events.bus import Bus
from shared_context_server.events.link import open_link
from shared_context_server.observability.history import SAMPLE_INTERVAL_S, History
from shared_context_server.observability.logs import get_logger
from shared_context_server.observability.metrics import Metrics
from shared_context_server.prompts import INSTRUCTIONS, add_prompts
from shared_context_server.resources import add_resources
from shared_context_server.rest.access import AccessLog
from shared_context_server.rest.calls import ToolEndpoint
from shared_context_server.rest.errors import exception_handlers
from shared_context_server.rest.hot_paths import HotPaths
from shared_context_server.rest.probes import refresh_gauges
from shared_context_server.rest.routes import METRICS_PATH, PUBLIC_PATHS, make_routes
from shared_context_server.search_index.folder import IndexFolder
from shared_context_server.services.candidates import Candidates
from shared_context_server.services.clock_alignment import ALIGN_INTERVAL_S, ClockAlignment
from shared_context_server.services.context import Services
from shared_context_server.services.disk import CHECK_INTERVAL_S, DiskReserve
from shared_context_server.services.index_process import IndexProcess
from shared_context_server.services.indexer import Indexer, open_indexer
from shared_context_server.services.mentions import CATCH_UP_INTERVAL_S, Mentions
from shared_context_server.services.presence import FLUSH_INTERVAL_S, Presence
from shared_context_server.services.quotas import Quotas
from shared_context_server.services.retention import delete_idle_sessions
from shared_context_server.services.shared_reads import SharedReads
from shared_context_server.services.slots import Slots
from shared_context_server.services.vector_indexer import VectorIndexer
from shared_context_server.services.vectors import Vectors
from shared_context_server.settings import LogLevel, McpSessions, Settings
from shared_context_server.steady_time import MACHINE_CLOCK, utc_now
from shared_context_server.storage import StorageId, find_directory, open_storage
from shared_context_server.subscriptions import add_subscriptions
from shared_context_server.tools.catalog import require_known_tools, served_tools
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
RETENTION_INTERVAL_S = 600.0
KEYS_INTERVAL_S = 0.4  # with the age of the known keys it stays below the second that is promised
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


@asynccontextmanager
async def open_server(
    settings: Settings, expected: StorageId | None = None, *, has_own_process: bool = False
) -> AsyncIterator[Server]:
    """Open a server for a with block.

    At the first start this creates the keys and the database, unless a storage is `expected`. If it
    `has_own_process`, not that of a client or of another program, it may start further ones. Raises
    ConfigurationError if the server cannot run with this configuration.
    """
    require_known_tools(settings)
    settings, _ = ensure_secrets(settings)
    folder = _find_index_folder(settings)
    vectors = _make_vectors(settings)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_storage(settings, expected))
        disk = DiskReserve(find_directory(settings), settings.disk_reserve_mb, store)
        await disk.check()
        if disk.is_on:
            await stack.enter_async_context(_every(CHECK_INTERVAL_S, disk.check))
        bus = Bus()
        await stack.enter_async_context(open_link(store, bus))
        stack.callback(bus.close)
        identity = Identity(store, settings)
        candidates = Candidates(folder)
        stack.callback(candidates.close)
        stack.callback(vectors.close)
        services = Services(
            settings=settings,
            store=store,
            identity=identity,
            candidates=candidates,
            vectors=vectors,
            presence=Presence(store, bus),
            clock=stack.enter_context(
                ClockReader(settings.clock_prefix, owner=settings.clock_owner)
            ),
            sensors=stack.enter_context(
                SensorReader(settings.clock_prefix, owner=settings.clock_owner)
            ),
            bus=bus,
            shared_reads=SharedReads(store, identity),
            limits=RateLimits(settings),
            slots=Slots(settings),
            quotas=Quotas(settings, store, disk),
            mentions=Mentions(store, is_on=settings.unread_mentions),
            history=History(utc_now()),
        )
        clock_alignment = ClockAlignment(store, MACHINE_CLOCK)
        with suppress(SharedContextError):  # it is repeated below
            await clock_alignment.align()
        await stack.enter_async_context(_every(ALIGN_INTERVAL_S, clock_alignment.align))
        if folder is not None:
            helper = None
            if has_own_process and not settings.is_in_memory:
                helper = IndexProcess(settings, expected)
            await stack.enter_async_context(open_indexer(Indexer(store, folder, helper=helper)))
        if vectors.is_on:
            await stack.enter_async_context(open_indexer(VectorIndexer(store, vectors)))
        metrics = Metrics()
        services.limits.on_failure = metrics.count_failed_authentication
        services.limits.on_limited = services.slots.on_limited = metrics.count_limited
        dispatcher = Dispatcher(services, served_tools(settings.tools), metrics)
        await stack.enter_async_context(_every(FLUSH_INTERVAL_S, services.presence.flush))
        await stack.enter_async_context(_every(CATCH_UP_INTERVAL_S, services.mentions.catch_up))
        stack.push_async_callback(services.mentions.finish)
        await stack.enter_async_context(_every(PURGE_INTERVAL_S, partial(purge, services)))
        await stack.enter_async_context(_every(KEYS_INTERVAL_S, partial(end_revoked, services)))
        await stack.enter_async_context(_every(KeyUses.FLUSH_INTERVAL_S, identity.uses.flush))
        if settings.session_retention_days is not None:
            retain = partial(apply_retention, services, metrics)
            await stack.enter_async_context(_every(RETENTION_INTERVAL_S, retain))
        if metrics.is_shared:
            refresh = partial(refresh_gauges, services, metrics)
            await stack.enter_async_context(_every(GAUGES_INTERVAL_S, refresh))
        services.history.begin(await asyncio.to_thread(metrics.collect))
        sample = partial(sample_metrics, services, metrics)
        await stack.enter_async_context(_every(SAMPLE_INTERVAL_S, sample))
        mcp = make_mcp(dispatcher)
        app = await make_app(stack, mcp, dispatcher, metrics, make_lane(mcp, dispatcher))
        yield Server(settings, services, dispatcher, metrics, mcp, app)
        store.maintenance.begin_closing()
        with suppress(SharedContextError):
            await services.presence.flush()
        with suppress(SharedContextError):
            await identity.uses.flush()


def _find_index_folder(settings: Settings) -> IndexFolder | None:
    if not settings.search_index:
        return None
    return IndexFolder(settings.search_index_parent, settings.storage_url)


def _make_vectors(settings: Settings) -> Vectors:
    if settings.semantic_model is None:
        return Vectors()
    folder = IndexFolder(settings.search_index_parent / "vectors", settings.storage_url)
    return Vectors(folder, settings.semantic_model)


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


async def end_revoked(services: Services) -> None:
    """Let all who wait or follow check their credentials if keys or revocations have changed."""
    if services.bus.subscriber_count == 0:
        return
    with suppress(SharedContextError):  # those who wait ask the store as well
        if await services.identity.have_keys_changed():
            services.bus.wake_all()


async def purge(services: Services) -> None:
    """Remove data that has expired, or is older than its retention."""
    settings, now = services.settings, utc_now()
    await services.store.maintenance.purge(
        expired_before=now,
        idempotency_before=now - timedelta(hours=settings.idempotency_retention_hours),
        audit_before=now - timedelta(days=settings.audit_retention_days),
    )


async def sample_metrics(services: Services, metrics: Metrics) -> None:
    """Add the present metrics to the history of the last hour."""
    if not metrics.is_shared:  # else they are refreshed more often
        await refresh_gauges(services, metrics)
    services.history.add(await asyncio.to_thread(metrics.collect), utc_now())


async def apply_retention(services: Services, metrics: Metrics) -> None:
    """Delete idle sessions, and count them."""
    async for session_id in delete_idle_sessions(services):
        metrics.expired_sessions.inc()
        _log.info("session expired", session_id=session_id)


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


@asynccontextmanager
async def _every(interval_s: float, job: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Run `job` periodically in the background. A failure is logged, and the next run follows."""

    function = job.func if isinstance(job, partial) else job
    name = getattr(
        function, "__name__", type(function).__name__
    )  # a repr would contain all settings

    async def repeat() -> None:
        while True:
            await asyncio.sleep(interval_s)
            try:
                await job()
            except SharedContextError as exc:
                _log.warning("background job failed", job=name, code=exc.code, error=exc.message)
            except Exception:  # noqa: BLE001 - it has no caller; the log shows it
                _log.exception("background job failed", job=name)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


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
            async with open_server(self._settings, self._expected, has_own_process=True) as server:
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
