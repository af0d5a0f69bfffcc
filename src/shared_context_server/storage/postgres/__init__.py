"""The PostgreSQL store: one database, any number of replicas on any number of hosts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import anyio
import asyncpg
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from shared_context_server.errors import ConfigurationError
from shared_context_server.observability.logs import get_logger
from shared_context_server.settings import Settings
from shared_context_server.storage.migrations import SchemaStatus, load_migrations
from shared_context_server.storage.postgres.copying import PostgresCopier, open_copier_on
from shared_context_server.storage.postgres.failures import DRIVER_ERRORS, LOST_CONNECTION
from shared_context_server.storage.postgres.hosts import Connector
from shared_context_server.storage.postgres.migrations import (
    MIGRATIONS_DIR,
    apply_migrations,
    read_status,
)
from shared_context_server.storage.postgres.pool import Connection, open_pool
from shared_context_server.storage.postgres.store import PostgresStorage

__all__ = [
    "migrate_postgres",
    "open_postgres",
    "open_postgres_copier",
    "postgres_schema_status",
]

T = TypeVar("T")

START_WAIT_S = 30.0  # for a database that is just starting, as it is when all are started at once
OLDEST_VERSION = 15

_NOT_A_URL = "it is not a URL; characters such as / and @ in a password have to be percent-encoded"
# What a wrong URL comes to, and a pooler's refusal: waiting would help neither.
_WRONG = (asyncpg.ClientConfigurationError, asyncpg.ProtocolViolationError)

_log = get_logger("storage")


@contextlib.asynccontextmanager
async def open_postgres(settings: Settings) -> AsyncIterator[PostgresStorage]:
    """Open the store that `settings.storage_url` names, migrated and ready, for a with block.

    Raises ConfigurationError as migrate_postgres does.
    """
    with _explain_errors():
        await _use_once(settings, _migrate)
        pool = await open_pool(settings)
    storage = PostgresStorage(pool, settings)
    try:
        yield storage
    finally:
        # A server that is being cancelled still has to finish its writes.
        with anyio.CancelScope(shield=True):
            await storage.aclose()


@contextlib.asynccontextmanager
async def open_postgres_copier(settings: Settings) -> AsyncIterator[PostgresCopier]:
    """Open a migrated database for copying. Raises ConfigurationError."""
    async with contextlib.AsyncExitStack() as stack:
        with _explain_errors():
            copier = await stack.enter_async_context(open_copier_on(settings))
        yield copier


def migrate_postgres(settings: Settings) -> list[str]:
    """Bring the schema up to date; the names of the migrations applied. Any number of replicas may
    do so at once.

    Raises ConfigurationError, having changed nothing: there is no such database or it does not
    answer, its version is older than 15, a migration fails, or the schema is newer than this
    program.
    """
    return _run_apart(_use_once(settings, _migrate))


def postgres_schema_status(settings: Settings) -> SchemaStatus:
    """Where the schema stands; changes and creates nothing. Raises ConfigurationError."""
    return _run_apart(_use_once(settings, _read_status))


def _run_apart(work: Coroutine[Any, Any, T]) -> T:
    """In a loop of its own, in a thread, because the caller may be inside a loop."""
    with _explain_errors(), ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def _migrate(connection: Connection) -> list[str]:
    return await apply_migrations(connection, load_migrations(MIGRATIONS_DIR))


async def _read_status(connection: Connection) -> SchemaStatus:
    return await read_status(connection, load_migrations(MIGRATIONS_DIR))


async def _use_once(settings: Settings, work: Callable[[Connection], Awaitable[T]]) -> T:
    """`work` on a connection of its own, to a database of a version that is supported."""
    connection = await _connect(settings)
    try:
        version = connection.get_server_version()
        if version.major < OLDEST_VERSION:
            raise ConfigurationError(
                f"The database is PostgreSQL {version.major}.{version.minor}; {OLDEST_VERSION} "
                "is the oldest version that is supported."
            )
        return await work(connection)
    finally:
        await connection.close()


async def _connect(settings: Settings) -> asyncpg.Connection[Any]:
    retrying = AsyncRetrying(
        retry=retry_if_exception_type((*LOST_CONNECTION, asyncpg.TooManyConnectionsError))
        & retry_if_not_exception_type(_WRONG),
        wait=wait_random_exponential(multiplier=0.2, max=2.0),
        stop=stop_after_delay(START_WAIT_S),
        reraise=True,
        before_sleep=lambda state: _log.warning(
            "the database does not answer yet",
            error=type(state.outcome.exception()).__name__ if state.outcome else None,
        ),
    )
    connection: asyncpg.Connection[Any] = await retrying(
        Connector(settings.storage_url, settings).connect
    )
    return connection


@contextlib.contextmanager
def _explain_errors() -> Iterator[None]:
    try:
        yield
    except (*DRIVER_ERRORS, ValueError) as exc:
        # Without the URL, which may hold a password, and of which a ValueError may quote a part.
        is_driver_error = isinstance(exc, DRIVER_ERRORS)
        reason = (str(exc) if is_driver_error else _NOT_A_URL) or type(exc).__name__
        raise ConfigurationError(f"DATABASE_URL: the database cannot be used: {reason}") from exc
