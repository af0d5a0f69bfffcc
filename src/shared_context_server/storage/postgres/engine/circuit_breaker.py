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
# Longer than the interval, so that the answer of a distant or busy database counts too. Probes
# that still wait when the database recovers are answered at once.
ASK_TIMEOUT_S = 10.0

_NO_ANSWER = (TimeoutError, asyncpg.TargetServerAttributeNotMatched)

_log = get_logger("storage")


class CircuitBreaker:
    """Open while the database is silent: while nobody gets a connection and an answer to `SELECT
    1`.

    A call without an answer only starts the probing, because it may have waited for another's lock.
    Then a new connection is tried every second until one answers. If none does within a second, the
    breaker opens. A refusal counts as an answer, because callers get it at once themselves.
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

    def start_probing(self) -> None:
        """Start probing whether the database is silent."""
        if self._watching is None or self._watching.done():
            # An empty context, because it serves many callers and must not log in the name of the first.
            self._watching = asyncio.create_task(
                self._watch(), name="postgres-breaker", context=contextvars.Context()
            )

    def open(self) -> None:
        if self._opened_at is None:
            self._opened_at = time.monotonic()
            _log.warning("the database does not answer: calls are refused until it does")
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
                await self._on_answer()  # idle connections may lead to a machine that is gone
            finally:
                self._opened_at = None
            _log.info("the database answers again", silent_s=silent_s)

    async def _ask(self, answered: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                connection = await self._connector.connect()
                try:
                    await connection.execute(
                        "SELECT 1"
                    )  # a pooler may answer up to here without the database
                finally:
                    connection.terminate()
        except _NO_ANSWER:
            return
        except Exception as exc:  # noqa: BLE001 - otherwise the breaker would stay open without probes
            _log.debug("the database refuses", error=type(exc).__name__)
        answered.set()
