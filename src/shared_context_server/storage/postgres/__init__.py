"""The PostgreSQL store: one database, any number of replicas on any number of hosts."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import anyio
import asyncpg
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_delay,
    wait_random_exponential,
)

from shared_context_server.errors import ConfigurationError
from shared_context_server.observability.logs import get_logger
from shared_context_server.settings import Settings
from shared_context_server.storage.backends import Backend, Inspection, StorageId, Vacuumed
from shared_context_server.storage.contract import Miscount, Store
from shared_context_server.storage.migrations import SchemaStatus, load_migrations
from shared_context_server.storage.postgres.agents import Agents
from shared_context_server.storage.postgres.audit import Audit
from shared_context_server.storage.postgres.changes import ChangeStream
from shared_context_server.storage.postgres.credentials import Credentials
from shared_context_server.storage.postgres.engine.failures import DRIVER_ERRORS, describe, may_pass
from shared_context_server.storage.postgres.engine.hosts import Connector
from shared_context_server.storage.postgres.engine.message_batcher import MessageBatcher
from shared_context_server.storage.postgres.engine.migrations import (
    MIGRATIONS_DIR,
    apply_migrations,
    read_status,
)
from shared_context_server.storage.postgres.engine.pool import Connection, open_pool
from shared_context_server.storage.postgres.engine.work import Engine
from shared_context_server.storage.postgres.expiry import Expiry
from shared_context_server.storage.postgres.fleet import Fleet
from shared_context_server.storage.postgres.leases import Leases
from shared_context_server.storage.postgres.maintenance import (
    Maintenance,
    may_write,
    vacuum_tables,
)
from shared_context_server.storage.postgres.memory import Memory
from shared_context_server.storage.postgres.messages import Messages, append_batch
from shared_context_server.storage.postgres.sessions import Sessions, use_session
from shared_context_server.storage.postgres.tasks import Tasks
from shared_context_server.storage.postgres.transfer import PostgresCopier, open_copier_on
from shared_context_server.storage.postgres.usage import recount

__all__ = ["BACKEND", "open_postgres"]

T = TypeVar("T")

START_WAIT_S = (
    30.0  # for a database that is still starting, because all services are started at once
)
OLDEST_VERSION = 15
# Other encodings lack characters that messages contain. SQL_ASCII stores any bytes unchecked.
ENCODINGS = ("UTF8", "SQL_ASCII")

_NOT_A_URL = "it is not a URL; characters such as / and @ in a password have to be percent-encoded"
_NO_FILE = (
    "a file that it names cannot be read (sslrootcert, sslcert, sslkey or sslcrl; PGSSLROOTCERT and "
    "the like)"
)
_FILE_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
# For a server on the same host, whose socket file exists once it has started.
_HAS_SOCKET = re.compile(r"(?:@|//|,|[?&]host=)(?:/|%2f)", re.IGNORECASE)

_AUTOVACUUM = (
    "PostgreSQL does this by itself (autovacuum). The space is used again by new rows; only VACUUM FULL, "
    "which locks the tables, gives all of it back to the file system."
)

_log = get_logger("storage")


@contextlib.asynccontextmanager
async def open_postgres(
    settings: Settings, expected: StorageId | None = None
) -> AsyncIterator[Store]:
    """Open the store that `settings.storage_url` names, migrated, for a with block.

    `expected` is ignored, because the server keeps databases apart. Raises ConfigurationError as
    migrate_postgres does.
    """
    with _explain_errors(settings.storage_url):
        await _use_once(settings, _prepare)
        pool = await open_pool(settings)
    batcher = MessageBatcher(pool, use_session, append_batch)
    store = _make_store(Engine(pool, batcher, settings))
    try:
        yield store
    finally:
        # A server that is cancelled still has to finish its writes.
        with anyio.CancelScope(shield=True):
            await store.maintenance.aclose()


def _make_store(engine: Engine) -> Store:
    return Store(
        sessions=Sessions(engine),
        messages=Messages(engine),
        memory=Memory(engine),
        leases=Leases(engine),
        tasks=Tasks(engine),
        credentials=Credentials(engine),
        agents=Agents(engine),
        fleet=Fleet(engine),
        audit=Audit(engine),
        changes=ChangeStream(engine),
        expiry=Expiry(engine),
        maintenance=Maintenance(engine),
    )


@contextlib.asynccontextmanager
async def open_postgres_copier(
    settings: Settings, *, read_only: bool
) -> AsyncIterator[PostgresCopier]:
    """Open a migrated database for copying. `read_only` has no effect: nothing is written unless
    asked for. Raises ConfigurationError."""
    async with contextlib.AsyncExitStack() as stack:
        listen_url = settings.postgres_listen_url
        name = "DATABASE_URL" if listen_url is None else "POSTGRES_LISTEN_URL"
        with _explain_errors(listen_url or settings.storage_url, name):
            copier = await stack.enter_async_context(open_copier_on(settings))
        yield copier


def migrate_postgres(settings: Settings) -> list[str]:
    """Bring the schema up to date; return the names of the applied migrations. Several replicas may
    do so at once.

    Raises ConfigurationError, having changed nothing: the database is missing or does not answer,
    its version is older than 15, its encoding is not UTF8, a migration fails, or the schema is
    newer than this program.
    """
    return _run_apart(settings, _migrate)


def postgres_schema_status(settings: Settings) -> SchemaStatus:
    """Return the schema's version. Changes and creates nothing. Raises ConfigurationError."""
    return _run_apart(settings, _read_status)


def inspect_postgres(settings: Settings, *, is_thorough: bool) -> Inspection:
    """Read from the database. Damage is found by PostgreSQL's own tools, such as pg_amcheck."""
    return _run_apart(settings, _inspect)


def recount_postgres(settings: Settings, *, mends: bool) -> list[Miscount]:
    """Find the counters that are wrong, and mend them. Raises ConfigurationError."""
    return _run_apart(settings, partial(recount, mends=mends))


def vacuum_postgres(settings: Settings) -> Vacuumed:
    """Run VACUUM on our tables; others can read and write. Raises ConfigurationError."""
    return _run_apart(settings, _vacuum)


def _run_apart(settings: Settings, work: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
    """Run the work in a loop of its own in a thread, because the caller may be inside a loop."""
    with _explain_errors(settings.storage_url), ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _use_once(settings, work)).result()


async def _prepare(connection: Connection) -> None:
    await _migrate(connection)
    if not await may_write(connection):
        raise ConfigurationError(
            "DATABASE_URL: the database cannot be used: the role may not write to the table "
            "messages"
        )


async def _migrate(connection: Connection) -> list[str]:
    return await apply_migrations(connection, load_migrations(MIGRATIONS_DIR))


async def _read_status(connection: Connection) -> SchemaStatus:
    return await read_status(connection, load_migrations(MIGRATIONS_DIR))


async def _inspect(connection: Connection) -> Inspection:
    version = connection.get_server_version()
    newest = await connection.fetchval("SELECT coalesce(max(id), 0) FROM messages")
    return Inspection(f"PostgreSQL {version.major}.{version.minor}", newest, [])


async def _vacuum(connection: Connection) -> Vacuumed:
    before, after = await vacuum_tables(connection)
    return Vacuumed(before, after, _AUTOVACUUM)


async def _use_once(settings: Settings, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Run `work` on a new connection to a database of a supported version and encoding."""
    connection = await _connect(settings)
    try:
        version = connection.get_server_version()
        if version.major < OLDEST_VERSION:
            raise ConfigurationError(
                f"The database is PostgreSQL {version.major}.{version.minor}; {OLDEST_VERSION} "
                "is the oldest version that is supported."
            )
        # A pooler may not report it.
        encoding = getattr(connection.get_settings(), "server_encoding", ENCODINGS[0])
        if encoding not in ENCODINGS:
            raise ConfigurationError(
                f"The database has the encoding {encoding}, in which not every text can be written: "
                "make one with ENCODING 'UTF8' (and TEMPLATE template0)."
            )
        return await work(connection)
    finally:
        await connection.close()


async def _connect(settings: Settings) -> asyncpg.Connection[Any]:
    url = settings.storage_url
    retrying = AsyncRetrying(
        retry=retry_if_exception(lambda exc: may_pass(exc) and not _is_of_a_file(exc, url)),
        wait=wait_random_exponential(multiplier=0.2, max=2.0),
        stop=stop_after_delay(START_WAIT_S),
        reraise=True,
        before_sleep=_warn,
    )
    connection: asyncpg.Connection[Any] = await retrying(Connector(url, settings).connect)
    return connection


def _warn(state: RetryCallState) -> None:
    exc = state.outcome.exception() if state.outcome is not None else None
    if exc is not None:
        error = type(exc).__name__
        _log.warning(
            "the database does not answer yet", error=error, reason=describe(exc), throttle=True
        )


def _is_of_a_file(exc: BaseException, url: str) -> bool:
    return isinstance(exc, _FILE_ERRORS) and _HAS_SOCKET.search(url) is None


@contextlib.contextmanager
def _explain_errors(url: str, setting: str = "DATABASE_URL") -> Iterator[None]:
    """Raise ConfigurationError in one line and without the URL, which may contain a password."""
    try:
        yield
    except (*DRIVER_ERRORS, ValueError, OverflowError) as exc:
        reason = " ".join(_find_reason(exc, url).split())
        raise ConfigurationError(f"{setting}: the database cannot be used: {reason}") from exc


def _find_reason(exc: BaseException, url: str) -> str:
    if isinstance(exc, OverflowError):
        return "a port is a number from 0 to 65535"
    if not isinstance(exc, DRIVER_ERRORS):
        return _NOT_A_URL  # a ValueError may quote a part of the URL
    if _is_of_a_file(exc, url):
        return _NO_FILE
    reason = str(exc) or describe(exc) or type(exc).__name__
    # With several @, the text before any of them may be a part of the password.
    _user, at, hosts = urlsplit(url).netloc.rpartition("@")
    names_hosts = isinstance(exc, OSError) and at and url.count("@") == 1
    return f"{hosts}: {reason}" if names_hosts else reason


def _identify(settings: Settings) -> StorageId | None:
    """Return None: the server keeps its databases apart."""
    return None


def _count_descriptors(settings: Settings) -> int:
    return settings.postgres_pool_size + 1  # plus one that listens


def _find_directory(_settings: Settings) -> None:
    return None


BACKEND = Backend(
    open_store=open_postgres,
    open_copier=open_postgres_copier,
    migrate=migrate_postgres,
    find_schema_status=postgres_schema_status,
    identify=_identify,
    back_up=None,
    restore=None,
    vacuum=vacuum_postgres,
    count_descriptors=_count_descriptors,
    inspect=inspect_postgres,
    recount=recount_postgres,
    find_directory=_find_directory,
)
