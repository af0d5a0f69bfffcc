"""Connections, and what a unit of work on one of them comes to when something fails."""

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

from shared_context_server.errors import Unavailable
from shared_context_server.observability.logs import get_logger
from shared_context_server.settings import Settings
from shared_context_server.storage.postgres.failures import (
    COLLISIONS,
    DRIVER_ERRORS,
    LOST_CONNECTION,
    wrap_error,
)
from shared_context_server.storage.postgres.hosts import Connector

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[Any] | PoolConnectionProxy[Any]"
Work: TypeAlias = "Callable[[Connection], Awaitable[T]]"

# Of one write: each time somebody else's has gone through, so that many are a sign of a defect.
MAX_COLLISIONS = 20
IDLE_LIFETIME_S = 300.0
REPORT_INTERVAL_S = 10.0

_log = get_logger("storage")


class Mode(Enum):
    """What a unit of work asks of its connection.

    PLAIN: each statement stands for itself, and reads. SNAPSHOT: all read the same state. WRITE: a
    transaction. WRITE_ONCE: a single statement. Other than in a SNAPSHOT, each statement sees what
    is committed when it begins.
    """

    PLAIN = "plain"
    WRITE_ONCE = "write once"
    SNAPSHOT = "snapshot"
    WRITE = "write"


_WRITES = (Mode.WRITE, Mode.WRITE_ONCE)
_SINGLE = (Mode.PLAIN, Mode.WRITE_ONCE)


async def open_pool(settings: Settings) -> Pool:
    """A pool that connects as it is used."""
    connector = Connector(settings.storage_url, settings)
    pool = await asyncpg.create_pool(
        connect=lambda *_, **arguments: connector.connect(**arguments),
        min_size=0,  # it was just seen that one can be had, and each call gets one as it can
        max_size=settings.postgres_pool_size,
        max_inactive_connection_lifetime=IDLE_LIFETIME_S,
        reset=_leave_as_it_is,
    )
    return Pool(pool, settings)


async def _leave_as_it_is(connection: Connection) -> None:
    """Work here leaves no state behind on a connection, so cleaning up would be a wasted trip."""


class Pool:
    """Runs units of work, each on a connection of its own and in a task of its own: a caller that is
    cancelled leaves at once, and its connection goes back in order."""

    def __init__(self, pool: asyncpg.Pool[Any], settings: Settings) -> None:
        self._pool = pool
        self._timeout_s = settings.postgres_timeout
        # Without prepared statements a pooler must not change the connection between a statement's
        # parsing and its execution, which it never does within a transaction.
        self._has_plain = settings.postgres_prepare
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waiting = 0
        self._failures = 0
        self._report_at = 0.0
        self._is_closed = False

    async def run(self, mode: Mode, work: Work[T]) -> T:
        """The result of `work`. Raises Unavailable if the database does not answer within the time
        that is set, having then done the work wholly or not at all."""
        if self._is_closed:
            raise Unavailable("The storage is closed.")
        task = asyncio.create_task(self._run(mode, work))
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(task)
        except TimeoutError as exc:
            self._report(exc)
            raise Unavailable("The database does not answer.") from exc

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # a caller that has left does not ask for it

    async def aclose(self) -> None:
        """Wait for the work under way, as long as it may take, then close the connections."""
        self._is_closed = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2 * self._timeout_s)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._pool.close()
        except DRIVER_ERRORS:
            self._pool.terminate()

    def stats(self) -> dict[str, float]:
        """Gauges by metric name."""
        size = self._pool.get_size()
        return {
            "scs_postgres_connections": size,
            "scs_postgres_connections_in_use": size - self._pool.get_idle_size(),
            "scs_postgres_waiting_for_connection": self._waiting,
        }

    async def _run(self, mode: Mode, work: Work[T]) -> T:
        try:
            return await self._run_until_done(mode, work)
        except DRIVER_ERRORS as exc:
            if isinstance(exc, asyncpg.ReadOnlySQLTransactionError):
                # What was the primary is none any more: the next connections find the new one.
                await self._pool.expire_connections()
            self._report(exc)
            raise wrap_error(exc) from exc

    def _report(self, exc: BaseException) -> None:
        """Log what failed, but not each of the many calls that fail while the database is away."""
        self._failures += 1
        now = time.monotonic()
        if now >= self._report_at:
            self._report_at = now + REPORT_INTERVAL_S
            error = type(exc).__name__
            _log.warning("the database fails", error=error, failures=self._failures)
            self._failures = 0

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
                # One that was idle when the database went away is only noticed when it is used.
                # A write may have happened, so that only its caller can know whether to repeat it.
                losses += 1
                if mode in _WRITES or losses > 1 or isinstance(exc, TimeoutError):
                    raise

    async def _run_once(self, mode: Mode, work: Work[T]) -> T:
        connection = await self._acquire()
        try:
            if mode in _SINGLE and self._has_plain:
                return await work(connection)
            async with self._transaction(connection, mode):
                return await work(connection)
        finally:
            # Its own failure would hide the one of the work; the connection is gone in any case.
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
