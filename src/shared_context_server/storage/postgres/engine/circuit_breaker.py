"""A circuit breaker: refuse calls at once while the database does not answer."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable

import asyncpg

from shared_context_server.observability.logs import get_logger
from shared_context_server.storage.postgres.engine.hosts import Connector

ASK_INTERVAL_S = 1.0
# Longer than the interval, so that a database which is far away, or busy, is heard too. What is
# still waiting when the database wakes up is answered at once.
ASK_TIMEOUT_S = 10.0

_NO_ANSWER = (TimeoutError, asyncpg.TargetServerAttributeNotMatched)

_log = get_logger("storage")


class CircuitBreaker:
    """Open while the database is silent: while nobody gets even a connection and `SELECT 1`.

    A call without an answer is only a reason to ask: it may have waited for somebody's lock. From
    then on one new connection a second asks, until one has an answer. If that takes longer than a
    second the breaker opens. A database that refuses has answered: callers learn as fast by
    themselves.
    """

    def __init__(
        self,
        connector: Connector,
        *,
        on_silent: Callable[[], None],
        on_answer: Callable[[], Awaitable[None]],
    ) -> None:
        self._connector = connector
        self._on_silent = on_silent
        self._on_answer = on_answer
        self._watching: asyncio.Task[None] | None = None
        self._opened_at: float | None = None

    @property
    def is_open(self) -> bool:
        return self._opened_at is not None

    def suspect(self) -> None:
        """Find out whether it is silent."""
        if self._watching is None or self._watching.done():
            # An empty context: it serves many callers and must not log as the first of them.
            self._watching = asyncio.create_task(
                self._watch(), name="postgres-breaker", context=contextvars.Context()
            )

    def open(self) -> None:
        if self._opened_at is None:
            self._opened_at = time.monotonic()
            _log.warning("the database is silent, callers are refused until it answers")
            self._on_silent()

    async def aclose(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])

    async def _watch(self) -> None:
        answered = asyncio.Event()
        asking: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            while not answered.is_set():
                task = group.create_task(self._ask(answered))
                asking.add(task)
                task.add_done_callback(asking.discard)
                try:
                    async with asyncio.timeout(ASK_INTERVAL_S):
                        await answered.wait()
                except TimeoutError:
                    self.open()
            for task in tuple(asking):
                task.cancel()
        if self._opened_at is not None:
            silent_s = round(time.monotonic() - self._opened_at, 1)
            try:
                await self._on_answer()  # idle connections may be those of a machine that is gone
            finally:
                self._opened_at = None
            _log.info("the database answers again", silent_s=silent_s)

    async def _ask(self, answered: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                connection = await self._connector.connect()
                try:
                    await connection.execute("SELECT 1")  # up to here a pooler answers by itself
                finally:
                    connection.terminate()
        except _NO_ANSWER:
            return
        except Exception as exc:  # noqa: BLE001 - or it would stay open, with nobody who asks
            _log.debug("the database refuses", error=type(exc).__name__)
        answered.set()
