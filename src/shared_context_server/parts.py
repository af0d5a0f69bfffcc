"""Opens the parts of a server that need no MCP and no web framework: store, services and dispatcher.

Importing those frameworks takes longer than all else that a command on a data dir does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from shared_context_server.auth.identity import Identity
from shared_context_server.auth.key_lives import KeyUses
from shared_context_server.auth.limits import RateLimits
from shared_context_server.auth.secrets import ensure_secrets
from shared_context_server.clock import ClockReader, SensorReader
from shared_context_server.errors import SharedContextError
from shared_context_server.events.bus import Bus
from shared_context_server.events.link import open_link
from shared_context_server.observability.history import History
from shared_context_server.observability.logs import get_logger
from shared_context_server.observability.traces import Traces
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
from shared_context_server.services.search_process import SearchProcess
from shared_context_server.services.shared_reads import SharedReads
from shared_context_server.services.slots import Slots
from shared_context_server.services.turns import Turns
from shared_context_server.services.vector_indexer import VectorIndexer
from shared_context_server.services.vectors import Vectors
from shared_context_server.settings import Settings
from shared_context_server.steady_time import MACHINE_CLOCK, utc_now
from shared_context_server.storage import StorageId, find_directory, open_storage
from shared_context_server.tools.catalog import require_known_tools, served_tools
from shared_context_server.tools.dispatch import CallObserver, Dispatcher

SEARCHES_AT_ONCE = 4  # each takes a core while it scores
KEYS_INTERVAL_S = 0.4  # with the age of the known keys it stays below the second that is promised

_log = get_logger("server")


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of an open server that answer tool calls. `settings` have all keys."""

    settings: Settings
    services: Services
    dispatcher: Dispatcher


@asynccontextmanager
async def open_parts(
    settings: Settings,
    expected: StorageId | None = None,
    *,
    observer: CallObserver | None = None,
    traces: Traces | None = None,
    has_own_process: bool = False,
) -> AsyncIterator[Parts]:
    """Open the parts for a with block, with the jobs in the background that calls rely on.

    `observer` counts the calls. `traces` makes their spans. Everything else is as for server.open_server.
    """
    require_known_tools(settings)
    settings, _ = ensure_secrets(settings)
    folder = IndexFolder.of(settings) if settings.search_index else None
    vectors = _make_vectors(settings)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_storage(settings, expected))
        disk = DiskReserve(find_directory(settings), settings.disk_reserve_mb, store)
        await disk.check()
        if disk.is_on:
            await stack.enter_async_context(run_every(CHECK_INTERVAL_S, disk.check))
        bus = Bus()
        await stack.enter_async_context(open_link(store, bus))
        stack.callback(bus.close)
        identity = Identity(store, settings)
        candidates = Candidates(folder)
        stack.callback(candidates.close)
        stack.callback(vectors.close)
        search_process = None
        may_start = has_own_process and not settings.is_in_memory
        if may_start and settings.search_process and settings.workers == 1:
            search_process = SearchProcess(settings, expected)
            stack.push_async_callback(search_process.aclose)
        services = Services(
            store=store,
            candidates=candidates,
            vectors=vectors,
            search_turns=Turns(SEARCHES_AT_ONCE),
            search_process=search_process,
            settings=settings,
            identity=identity,
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
        await stack.enter_async_context(run_every(ALIGN_INTERVAL_S, clock_alignment.align))
        if folder is not None:
            helper = IndexProcess(settings, expected) if may_start else None
            await stack.enter_async_context(open_indexer(Indexer(store, folder, helper=helper)))
        if vectors.is_on:
            await stack.enter_async_context(open_indexer(VectorIndexer(store, vectors)))
        dispatcher = Dispatcher(services, served_tools(settings.tools), observer, traces)
        await stack.enter_async_context(run_every(FLUSH_INTERVAL_S, services.presence.flush))
        await stack.enter_async_context(run_every(CATCH_UP_INTERVAL_S, services.mentions.catch_up))
        stack.push_async_callback(services.mentions.finish)
        await stack.enter_async_context(run_every(KEYS_INTERVAL_S, partial(end_revoked, services)))
        await stack.enter_async_context(run_every(KeyUses.FLUSH_INTERVAL_S, identity.uses.flush))
        yield Parts(settings, services, dispatcher)
        store.maintenance.begin_closing()
        with suppress(SharedContextError):
            await services.presence.flush()
        with suppress(SharedContextError):
            await identity.uses.flush()


def _make_vectors(settings: Settings) -> Vectors:
    if settings.semantic_model is None:
        return Vectors()
    folder = IndexFolder(settings.search_index_parent / "vectors", settings.storage_url)
    return Vectors(folder, settings.semantic_model)


async def end_revoked(services: Services) -> None:
    """Let all who wait or follow check their credentials if keys or revocations have changed."""
    if services.bus.subscriber_count == 0:
        return
    with suppress(SharedContextError):  # those who wait ask the store as well
        if await services.identity.have_keys_changed():
            services.bus.wake_all()


@asynccontextmanager
async def run_every(interval_s: float, job: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
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
