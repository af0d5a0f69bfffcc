"""Prometheus metrics of one server process, or of all workers of a server together."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MutexValue, ValueClass

from shared_context_server import __version__
from shared_context_server.observability.history import BUCKETS_S

T = TypeVar("T")

# What reading a file of metrics raises while its worker makes, writes or removes it.
_UNFINISHED_FILE = (OSError, RuntimeError, ValueError, struct.error)
_PAUSES_S = (0.01, 0.05, 0.2)

STORE_GAUGES = {
    "scs_writer_queue_depth": "Writes that wait for the writer thread of SQLite.",
    "scs_writer_last_batch_size": "Writes that shared the latest commit on SQLite.",
    "scs_writer_batches": "Commits on SQLite since the start.",
    "scs_writer_operations": "Writes in commits on SQLite since the start.",
    "scs_postgres_connections": "Connections of the server to PostgreSQL.",
    "scs_postgres_connections_in_use": "Connections to PostgreSQL that are used at the moment.",
    "scs_postgres_waiting_for_connection": "Units of work that wait for a connection to PostgreSQL.",
    "scs_postgres_up": "Workers whose PostgreSQL answered just now; 0 if it is away. Read it with "
    "METRICS_PUBLIC=true, because keys cannot be checked without the database.",
}
"""The gauges that the storage backends report, by name."""


class Metrics:
    """The metrics of one server. Each instance has its own registry, so that servers do not share one.

    `is_shared`: with PROMETHEUS_MULTIPROC_DIR the values are in files of all workers. Gauges of the
    store then have the value of the worker that read it last. Other gauges are added up.
    """

    def __init__(self) -> None:
        self.is_shared = ValueClass is not MutexValue
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "mcp_requests_total",
            "Tool calls by tool and status.",
            ["tool", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "mcp_request_duration_seconds",
            "Time that tool calls took.",
            ["tool"],
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self.active_sessions = Gauge(
            "mcp_active_sessions",
            "Sessions that are not closed.",
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )
        self.expired_sessions = Counter(
            "scs_sessions_expired_total",
            "Sessions that were deleted because of SESSION_RETENTION_DAYS.",
            registry=self.registry,
        )
        self.expired_messages = Counter(
            "scs_messages_expired_total",
            "Messages that were removed because of MESSAGE_RETENTION_DAYS.",
            registry=self.registry,
        )
        self.vacuumed_bytes = Counter(
            "scs_vacuumed_bytes_total",
            "Bytes of SQLite's file that were given back to the file system after deletions.",
            registry=self.registry,
        )
        self._failed_authentications = Counter(
            "scs_failed_authentications_total",
            "Wrong credentials by answer: refused, or limited (429) over FAILED_AUTH_LIMIT.",
            ["answer"],
            registry=self.registry,
        )
        self._limited = Counter(
            "scs_limited_total",
            "Refused calls and requests by the limit that was reached: a setting in small letters, or "
            "size, json_depth, disk.",
            ["limit"],
            registry=self.registry,
        )
        self.waiters = Gauge(
            "mcp_waiters",
            "Calls and streams that wait for something.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.active_agents = Gauge(
            "mcp_active_agents",
            "Agents that called in the last five minutes.",
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )
        self.free_bytes = Gauge(
            "scs_database_free_bytes",
            "Bytes of SQLite's file that nothing uses, and that later rows fill; NaN on PostgreSQL.",
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )
        self.clock_age_s = Gauge(
            "scs_clock_age_seconds",
            "Time since the clock daemon's latest tick; NaN when there was none.",
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )
        self.search_index_behind = Gauge(
            "scs_search_index_behind_messages",
            "Messages that the search index has not read yet; NaN without an index. Falls to 0 within a "
            "second unless the server is busy.",
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )
        self.search_index_bytes = Gauge(
            "scs_search_index_bytes",
            "Size of the search index on disk, about 110 bytes for a message of 25 words; NaN without an "
            "index.",
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )
        self._extra: dict[str, Gauge] = {}
        Gauge(
            "shared_context_server_info",
            "The version of the server; the value is always 1.",
            ["version"],
            registry=self.registry,
            multiprocess_mode="mostrecent",
        ).labels(__version__).set(1)
        self._children: dict[tuple[str, int], Counter] = {}
        self._timers: dict[str, Histogram] = {}

    def count_failed_authentication(self, is_limited: bool) -> None:
        """Count a wrong credential."""
        answer = "limited" if is_limited else "refused"
        self._failed_authentications.labels(answer).inc()

    def count_limited(self, limit: str) -> None:
        """Count a refusal because a limit was reached. The names of limits are ours, and few."""
        self._limited.labels(limit).inc()

    def observe(self, tool: str, status: int, seconds: float) -> None:
        """Count one finished call."""
        counter = self._children.get((tool, status))
        if counter is None:
            counter = self._children[tool, status] = self._requests.labels(tool, str(status))
        timer = self._timers.get(tool)
        if timer is None:
            timer = self._timers[tool] = self._seconds.labels(tool)
        counter.inc()
        timer.observe(seconds)

    def set_gauge(self, name: str, value: float) -> None:
        """Set one of STORE_GAUGES. It is created at its first value."""
        gauge = self._extra.get(name)
        if gauge is None:
            gauge = self._extra[name] = Gauge(
                name,
                STORE_GAUGES[name],
                registry=self.registry,
                multiprocess_mode="livesum",
            )
        gauge.set(value)

    def render(self) -> bytes:
        """The Prometheus text format, version 0.0.4. It may take some milliseconds and wait, so it is for
        a thread."""
        return self._read(generate_latest)

    def collect(self) -> list[Metric]:
        """All metrics: of this process, or of all workers together, which reads their files."""
        return self._read(lambda registry: list(registry.collect()))

    def _read(self, read: Callable[[CollectorRegistry], T]) -> T:
        if not self.is_shared:
            return read(self.registry)
        for pause_s in _PAUSES_S:
            try:
                return read(_join_workers())
            except _UNFINISHED_FILE:  # of a worker that starts or ends right now
                time.sleep(pause_s)
        return read(_join_workers())


def _join_workers() -> CollectorRegistry:
    together = CollectorRegistry()
    MultiProcessCollector(together)  # type: ignore[no-untyped-call]  # theirs
    return together
