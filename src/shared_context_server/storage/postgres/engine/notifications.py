"""Wake the other replicas on one database with LISTEN and NOTIFY."""

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
CHECK_INTERVAL_S = 15.0  # a connection that was lost silently is noticed within this time
RETRY_MAX_S = 2.0

_NOTIFY = Statement("SELECT pg_notify(:channel, :payload)")

_log = get_logger("events")


def _warn_once(state: RetryCallState) -> None:
    """Log an outage, not each attempt in it."""
    exc = state.outcome.exception() if state.outcome is not None else None
    if state.attempt_number == 1 and exc is not None:
        error = type(exc).__name__
        _log.warning("not listening to the database", error=error, reason=describe(exc))


class NotifyChannel:
    """A WakeupChannel over NOTIFY. A notification names only its sender.

    It is sent after the commit, not in the transaction: PostgreSQL commits transactions that notify
    one at a time, each waiting for the disk. If a process dies before it notifies, the others find
    the change at their next poll.
    """

    def __init__(self, pool: Pool, settings: Settings, on_wakeup: Callable[[], None]) -> None:
        self._pool = pool
        self._connector = Connector(settings.postgres_listen_url or settings.storage_url, settings)
        self._on_wakeup = on_wakeup
        self._token = secrets.token_hex(8)
        self._listening: asyncio.Task[None] | None = None
        self._tasks = BackgroundTasks("postgres-notifications")
        self._is_notifying = False
        self._is_notify_due = False
        self._is_closed = False

    def start_listening(self) -> bool:
        if self._listening is None and not self._is_closed:
            self._listening = self._tasks.start(self._keep_listening())
        return True

    def stop_listening(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None

    def notify(self) -> None:
        self._is_notify_due = True
        if not self._is_notifying and not self._is_closed:
            self._is_notifying = True
            self._tasks.start(self._notify_all())

    def close(self) -> None:
        self._is_closed = True
        self.stop_listening()

    async def aclose(self) -> None:
        """Close, and wait for the tasks to end."""
        self.close()
        await self._tasks.wait()

    async def _notify_all(self) -> None:
        """Notify, and once more for all calls that came meanwhile."""
        try:
            while self._is_notify_due:
                self._is_notify_due = False
                with suppress(SharedContextError):  # listeners poll anyway
                    await self._pool.run(Mode.READ, self._send_notification)
        finally:
            self._is_notifying = False

    async def _send_notification(self, connection: Connection) -> None:
        await connection.execute(*_NOTIFY(channel=CHANNEL, payload=self._token))

    async def _keep_listening(self) -> None:
        """Listen, and reconnect whenever the connection is lost."""
        retrying = AsyncRetrying(
            # ValueError: POSTGRES_LISTEN_URL is not a URL; nothing else needs it
            retry=retry_if_exception_type((*DRIVER_ERRORS, ValueError)),
            wait=wait_random_exponential(multiplier=0.1, max=RETRY_MAX_S),
            before_sleep=_warn_once,
        )
        while True:
            # A copy each time, so that a later loss begins with the short pauses again.
            connection: asyncpg.Connection[Any] = await retrying.copy()(self._connect)
            _log.debug("listening for notifications of the database")
            try:
                # A notification may have been sent while nobody listened.
                self._on_wakeup()
                await self._wait_for_loss(connection)
            except DRIVER_ERRORS as exc:
                _log.warning("the listening connection was lost", error=type(exc).__name__)
            finally:
                connection.terminate()

    async def _connect(self) -> asyncpg.Connection[Any]:
        connection = await self._connector.connect()
        try:
            await connection.add_listener(CHANNEL, self._receive)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _wait_for_loss(self, connection: asyncpg.Connection[Any]) -> None:
        """Wait until the connection is lost, then raise."""
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        while not connection.is_closed():
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_INTERVAL_S):
                    await ended.wait()
            await connection.execute("SELECT 1")
        raise asyncpg.ConnectionDoesNotExistError

    def _receive(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload != self._token:
            self._on_wakeup()
