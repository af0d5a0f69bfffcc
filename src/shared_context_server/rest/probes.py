"""Health checks and metrics: GET /health, GET /ready, GET /metrics."""

from __future__ import annotations

import asyncio
import math
import time

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from shared_context_server import policy
from shared_context_server.auth.middleware import current_connection
from shared_context_server.errors import SharedContextError, Unavailable
from shared_context_server.models import Permission
from shared_context_server.observability.logs import get_logger
from shared_context_server.observability.metrics import Metrics
from shared_context_server.rest.wire import FixedAnswer, send_body
from shared_context_server.services import clock
from shared_context_server.services.context import Services
from shared_context_server.services.disk import DiskReserve
from shared_context_server.services.presence import ACTIVE_WINDOW
from shared_context_server.steady_time import utc_now
from shared_context_server.storage import Store

FRESH_S = 1.0  # how long an answer of the storage counts
PING_TIMEOUT_S = 1.0  # how long to wait for one

_log = get_logger("probes")


def health_endpoint() -> FixedAnswer:
    """GET /health: the process answers. It checks nothing else, so that a slow disk does not get
    the server killed."""
    return FixedAnswer(to_json({"success": True, "status": "ok"}))


class Readiness:
    """Whether the storage has answered within the last second.

    One ping runs at a time, however many requests ask. A ping that hangs is waited for at most
    `ping_timeout_s`, and is not repeated until it has ended.
    """

    def __init__(
        self, store: Store, *, fresh_s: float = FRESH_S, ping_timeout_s: float = PING_TIMEOUT_S
    ) -> None:
        self._store = store
        self._fresh_s = fresh_s
        self._ping_timeout_s = ping_timeout_s
        self._answered_at = -math.inf
        self._ping: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """Raise Unavailable if the storage did not answer."""
        if time.monotonic() - self._answered_at <= self._fresh_s:
            return
        if self._ping is None or self._ping.done():
            self._ping = asyncio.create_task(self._store.maintenance.ping())
            self._ping.add_done_callback(self._note)
        ping = self._ping
        await asyncio.wait([ping], timeout=self._ping_timeout_s)
        if not ping.done():
            raise Unavailable("The storage does not answer in time.")
        if ping.cancelled():
            raise Unavailable
        if (error := ping.exception()) is not None:
            raise error if isinstance(error, SharedContextError) else Unavailable from error

    def _note(self, ping: asyncio.Task[None]) -> None:
        if not ping.cancelled() and ping.exception() is None:
            self._answered_at = time.monotonic()


class ReadyEndpoint:
    """GET /ready: 503 with Retry-After while the storage does not answer. `storage_full` if only the
    disk's reserve is left, so that what adds data is refused."""

    _BODY = to_json({"success": True, "status": "ready"})
    # It stays ready: it would serve no reads either if a load balancer took it away.
    _FULL_BODY = to_json({"success": True, "status": "ready", "storage_full": True})

    def __init__(self, readiness: Readiness, disk: DiskReserve) -> None:
        self._readiness = readiness
        self._disk = disk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._readiness.check()
        await send_body(send, self._FULL_BODY if self._disk.is_reached else self._BODY)


class MetricsEndpoint:
    """GET /metrics: Prometheus text 0.0.4, for callers who may read, or for everybody."""

    def __init__(self, services: Services, metrics: Metrics) -> None:
        self._services = services
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._services.settings.metrics_public:
            policy.require_permission(current_connection.get().caller, Permission.READ)
        await refresh_gauges(self._services, self._metrics)
        await send_body(
            send,
            await asyncio.to_thread(self._metrics.render),
            content_type=CONTENT_TYPE_PLAIN_0_0_4.encode(),
        )


async def refresh_gauges(services: Services, metrics: Metrics) -> None:
    """Set the gauges from the clock and the storage. If the storage does not answer, its gauges are
    NaN, and the counters are still useful."""
    metrics.waiters.set(services.bus.subscriber_count)
    metrics.clock_age_s.set(clock.measure_clock_age_s(services.clock))
    index = await services.candidates.measure()
    metrics.search_index_bytes.set(math.nan if index is None else index.size_bytes)
    metrics.search_index_behind.set(math.nan)
    try:
        if index is not None:
            newest_id = await services.store.messages.get_newest_id()
            metrics.search_index_behind.set(max(0, newest_id - index.message_id))
        stats = await services.store.maintenance.get_stats(active_since=utc_now() - ACTIVE_WINDOW)
    except SharedContextError as exc:
        _log.warning("no statistics from the storage", code=exc.code, error=exc.message)
        metrics.active_sessions.set(math.nan)
        metrics.active_agents.set(math.nan)
        metrics.free_bytes.set(math.nan)
        return
    metrics.active_sessions.set(stats.active_sessions)
    metrics.active_agents.set(stats.active_agents)
    metrics.free_bytes.set(stats.free_bytes)
    for name, value in stats.extra.items():
        metrics.set_gauge(name, value)
