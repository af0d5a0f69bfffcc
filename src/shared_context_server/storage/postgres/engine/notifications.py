"""LISTEN and NOTIFY: how the replicas on one database wake each other."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import asyncpg
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from shared_context_server.background_tasks import BackgroundTasks
from shared_context_server.errors import SharedContextError
from shared_context_server.observability.logs import get_logger
from shared_context_server.settings import Settings
from shared_context_server.storage.postgres.engine.failures import DRIVER_ERRORS, describe
from shared_context_server.storage.postgres.engine.hosts import Connector
from shared_context_server.storage.postgres.engine.pool import Connection, Mode, Pool
from shared_context_server.storage.postgres.engine.statements import Statement

CHANNEL = "shared_context"
CHECK_INTERVAL_S = 15.0  # a connection that was cut without a word is noticed within this time
RETRY_MAX_S = 2.0

_NOTIFY = Statement("SELECT pg_notify(:channel, :payload)")

_log = get_logger("events")


def _warn_once(state: RetryCallState) -> None:
    """Of an outage, not of each attempt in it."""
    exc = state.outcome.exception() if state.outcome is not None else None
    if state.attempt_number == 1 and exc is not None:
        error = type(exc).__name__
        _log.warning("not listening to the database", error=error, reason=describe(exc))


class NotifyBell:
    """A Bell over NOTIFY, which is sent after the commit and says nothing but who rings.

    Not in the transaction: PostgreSQL lets transactions that notify commit one at a time, each
    waiting for the disk, which would be the limit of the whole database. A ring that is lost, with
    the process that owed it, costs those who wait no more than the time until they look anyway.
    """

    def __init__(self, pool: Pool, settings: Settings, on_ring: Callable[[], None]) -> None:
        self._pool = pool
        self._connector = Connector(settings.postgres_listen_url or settings.storage_url, settings)
        self._on_ring = on_ring
        self._token = secrets.token_hex(8)
        self._listening: asyncio.Task[None] | None = None
        self._tasks = BackgroundTasks("postgres-notifications")
        self._is_ringing = False
        self._is_ring_due = False
        self._is_closed = False

    def start_listening(self) -> bool:
        if self._listening is None and not self._is_closed:
            self._listening = self._tasks.start(self._keep_listening())
        return True

    def stop_listening(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None

    def ring(self) -> None:
        self._is_ring_due = True
        if not self._is_ringing and not self._is_closed:
            self._is_ringing = True
            self._tasks.start(self._ring())

    def close(self) -> None:
        self._is_closed = True
        self.stop_listening()

    async def aclose(self) -> None:
        """Close, and wait until nothing of it runs any more."""
        self.close()
        await self._tasks.wait()

    async def _ring(self) -> None:
        """Ring, and once more for all who wanted to ring meanwhile."""
        try:
            while self._is_ring_due:
                self._is_ring_due = False
                with suppress(SharedContextError):  # who listens looks anyway, before long
                    await self._pool.run(Mode.READ, self._notify)
        finally:
            self._is_ringing = False

    async def _notify(self, connection: Connection) -> None:
        await connection.execute(*_NOTIFY(channel=CHANNEL, payload=self._token))

    async def _keep_listening(self) -> None:
        """Listen, and after each loss of the connection again; never gives up."""
        retrying = AsyncRetrying(
            # ValueError: POSTGRES_LISTEN_URL is none; nothing else needs it
            retry=retry_if_exception_type((*DRIVER_ERRORS, ValueError)),
            wait=wait_random_exponential(multiplier=0.1, max=RETRY_MAX_S),
            before_sleep=_warn_once,
        )
        while True:
            # Anew each time, so that a loss after hours begins with the short pauses again.
            connection: asyncpg.Connection[Any] = await retrying.copy()(self._connect)
            _log.debug("listening to the database")
            try:
                # Rung for it might have been while nobody listened.
                self._on_ring()
                await self._stay(connection)
            except DRIVER_ERRORS as exc:
                _log.warning("the connection that listens was lost", error=type(exc).__name__)
            finally:
                connection.terminate()

    async def _connect(self) -> asyncpg.Connection[Any]:
        connection = await self._connector.connect()
        try:
            await connection.add_listener(CHANNEL, self._hear)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _stay(self, connection: asyncpg.Connection[Any]) -> None:
        """Until the connection is lost, then raise."""
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        while not connection.is_closed():
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_INTERVAL_S):
                    await ended.wait()
            await connection.execute("SELECT 1")
        raise asyncpg.ConnectionDoesNotExistError

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload != self._token:
            self._on_ring()
