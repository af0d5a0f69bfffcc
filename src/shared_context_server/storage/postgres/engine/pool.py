"""The connection pool: run units of work, retry them, and translate their errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum
from typing import Any, TypeAlias, TypeVar

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from asyncpg.transaction import Transaction

from shared_context_server.background_tasks import BackgroundTasks
from shared_context_server.errors import Unavailable
from shared_context_server.observability.logs import get_logger
from shared_context_server.settings import Settings
from shared_context_server.storage.postgres.engine.circuit_breaker import CircuitBreaker
from shared_context_server.storage.postgres.engine.failures import (
    COLLISIONS,
    DRIVER_ERRORS,
    LOST_CONNECTION,
    describe,
    wrap_error,
)
from shared_context_server.storage.postgres.engine.hosts import Connector

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[Any] | PoolConnectionProxy[Any]"
Work: TypeAlias = "Callable[[Connection], Awaitable[T]]"

# Of one write. Each conflict means that another write succeeded, so many conflicts show a defect.
MAX_COLLISIONS = 20
IDLE_LIFETIME_S = 300.0
REPORT_INTERVAL_S = 10.0
# The time left for a call when the server is about to stop: its answer has to reach the caller
# within the time that the server gives to calls in progress.
LAST_WAIT_S = 3.0
MIN_WAIT_S = 0.5  # also for later calls: the work at the end takes milliseconds
# While other calls are answered, one without an answer waits for something of its own.
ANSWERED_LATELY_S = 1.0

_log = get_logger("storage")


class Mode(Enum):
    """What a unit of work needs.

    READ: statements that only read, without a transaction. SNAPSHOT: all statements see one
    snapshot. WRITE: a transaction. WRITE_ONCE: a single statement. Except in SNAPSHOT, each
    statement sees what is committed when it begins.
    """

    READ = "read"
    WRITE_ONCE = "write once"
    SNAPSHOT = "snapshot"
    WRITE = "write"


_SILENT = "The database does not answer."
_WRITES = (Mode.WRITE, Mode.WRITE_ONCE)
_SINGLE = (Mode.READ, Mode.WRITE_ONCE)


async def open_pool(settings: Settings) -> Pool:
    """Make a pool that connects on first use."""
    connector = Connector(settings.storage_url, settings)
    pool = await asyncpg.create_pool(
        connect=lambda *_, **arguments: connector.connect(**arguments),
        min_size=0,  # it was just seen that one can be had, and each call gets one as it can
        max_size=settings.postgres_pool_size,
        max_inactive_connection_lifetime=IDLE_LIFETIME_S,
        connection_class=_PooledConnection,
        reset=_leave_as_it_is,
    )
    return Pool(pool, connector, settings)


class _PooledConnection(asyncpg.Connection):
    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as theirs
        """Close an expired connection, in a task that nobody awaits. Errors are ignored: the other
        side may not answer any more, and a traceback in the log would not help."""
        with suppress(*DRIVER_ERRORS):
            await super().close(timeout=timeout)


def _ignore_failure(task: asyncio.Task[Any]) -> None:
    """Mark the error as retrieved: the caller has left."""
    if not task.cancelled():
        task.exception()


async def _leave_as_it_is(connection: Connection) -> None:
    """Do nothing when a connection is returned: our work leaves no state on it, so a reset would be
    a wasted round trip."""


class Pool:
    """Runs units of work, each on a connection and in a task of its own. So a cancelled caller
    leaves at once, and its connection is returned in order."""

    def __init__(self, pool: asyncpg.Pool[Any], connector: Connector, settings: Settings) -> None:
        self._pool = pool
        self._breaker = CircuitBreaker(
            connector, on_silent=self._end_waits, on_answer=pool.expire_connections
        )
        self._timeout_s = settings.postgres_timeout
        # Without prepared statements a pooler must not change the connection between a statement's
        # parsing and its execution, which it never does within a transaction.
        self._may_autocommit = settings.postgres_prepare
        self._tasks = BackgroundTasks("postgres-pool")
        self._waits: set[asyncio.Timeout] = set()
        self._waiting = 0
        self._answered_at = 0.0
        self._failures = 0
        self._report_at: dict[str, float] = {}
        self._close_at: float | None = None
        self._is_closed = False

    async def run(self, mode: Mode, work: Work[T]) -> T:
        """Return the result of `work`. Raises Unavailable if the database does not answer in time;
        the work was then done wholly or not at all. Raises it at once while the circuit breaker is
        open."""
        if self._is_closed:
            raise Unavailable("The storage is closed.")
        if self._breaker.is_open:
            raise Unavailable(_SILENT)
        task = self._tasks.start(self._run(mode, work))
        task.add_done_callback(_ignore_failure)
        is_closing = self._close_at is not None
        wait = asyncio.timeout(self._find_timeout_s() if is_closing else self._timeout_s)
        self._waits.add(wait)
        try:
            async with wait:
                return await asyncio.shield(task)
        except TimeoutError as exc:
            self._note_failure(exc)
            raise Unavailable(_SILENT) from exc
        finally:
            self._waits.discard(wait)

    def begin_closing(self) -> None:
        """End all waits within LAST_WAIT_S, the present ones too."""
        if self._close_at is None:
            self._close_at = time.monotonic() + LAST_WAIT_S
            self._end_waits(within_s=LAST_WAIT_S)

    def _find_timeout_s(self) -> float:
        """Return how long a call that begins now may take."""
        if self._close_at is None:
            return self._timeout_s
        return min(self._timeout_s, max(self._close_at - time.monotonic(), MIN_WAIT_S))

    def _end_waits(self, *, within_s: float = 0.0) -> None:
        end_at = asyncio.get_running_loop().time() + within_s
        for wait in self._waits:
            if not wait.expired() and (wait.when() or end_at) > end_at:
                wait.reschedule(end_at)

    async def aclose(self) -> None:
        """Wait a moment for the work in progress, then close the connections."""
        self._is_closed = True
        self.begin_closing()
        try:
            async with asyncio.timeout(0 if self._breaker.is_open else self._find_timeout_s()):
                await self._tasks.wait()
                await self._pool.close()
        except DRIVER_ERRORS:
            self._pool.terminate()
        await self._breaker.aclose()

    def stats(self) -> dict[str, float]:
        """Return gauges by metric name."""
        size = self._pool.get_size()
        return {
            "scs_postgres_connections": size,
            "scs_postgres_connections_in_use": size - self._pool.get_idle_size(),
            "scs_postgres_waiting_for_connection": self._waiting,
        }

    async def _run(self, mode: Mode, work: Work[T]) -> T:
        try:
            result = await self._run_until_done(mode, work)
        except DRIVER_ERRORS as exc:
            if isinstance(exc, asyncpg.ReadOnlySQLTransactionError):
                # The former primary is one no longer: the next connections find the new one.
                await self._pool.expire_connections()
            self._note_failure(exc)
            raise wrap_error(exc) from exc
        self._answered_at = time.monotonic()
        return result

    def _note_failure(self, exc: BaseException) -> None:
        """Log the failure, but not for each of many calls while the database is away. Start probing
        if the database seems to be silent."""
        self._failures += 1
        now = time.monotonic()
        error = type(exc).__name__
        if now >= self._report_at.get(error, 0.0):
            self._report_at[error] = now + REPORT_INTERVAL_S
            _log.warning(
                "the database fails", error=error, reason=describe(exc), failures=self._failures
            )
            self._failures = 0
        if isinstance(exc, TimeoutError) and now - self._answered_at > ANSWERED_LATELY_S:
            if self._close_at is not None:
                self._breaker.open()  # there is no time left to ask
            else:
                self._breaker.start_probing()

    async def _run_until_done(self, mode: Mode, work: Work[T]) -> T:
        collisions = losses = 0
        while True:
            try:
                return await self._run_once(mode, work)
            except COLLISIONS:
                collisions += 1
                if collisions == MAX_COLLISIONS:
                    raise
            except LOST_CONNECTION as exc:
                # The loss of an idle connection is only noticed when it is used.
                # A write may have been committed, so only its caller can know whether to repeat it.
                losses += 1
                if mode in _WRITES or losses > 1 or isinstance(exc, TimeoutError):
                    raise

    async def _run_once(self, mode: Mode, work: Work[T]) -> T:
        connection = await self._acquire()
        try:
            if mode in _SINGLE and self._may_autocommit:
                return await work(connection)
            async with self._transaction(connection, mode):
                return await work(connection)
        finally:
            # A failing rollback would hide the work's error; the connection is gone anyway.
            with suppress(*DRIVER_ERRORS):
                await self._pool.release(connection, timeout=self._timeout_s)

    @staticmethod
    def _transaction(connection: PoolConnectionProxy[Any], mode: Mode) -> Transaction:
        if mode is Mode.SNAPSHOT:
            return connection.transaction(isolation="repeatable_read", readonly=True)
        return connection.transaction(isolation="read_committed")

    async def _acquire(self) -> PoolConnectionProxy[Any]:
        self._waiting += 1
        try:
            return await self._pool.acquire(timeout=self._timeout_s)
        except asyncpg.InterfaceError as exc:
            raise Unavailable("The storage is closed.") from exc
        finally:
            self._waiting -= 1
