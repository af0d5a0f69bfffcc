"""The SQLite store: one file, any number of processes on one host."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import anyio
import filelock

from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings
from shared_context_server.storage.backends import Backend
from shared_context_server.storage.contract import Store
from shared_context_server.storage.migrations import SchemaStatus, load_migrations
from shared_context_server.storage.sqlite.agents import Agents
from shared_context_server.storage.sqlite.audit import Audit
from shared_context_server.storage.sqlite.backup import back_up_sqlite, restore_sqlite
from shared_context_server.storage.sqlite.changes import ChangeStream
from shared_context_server.storage.sqlite.credentials import Credentials
from shared_context_server.storage.sqlite.engine.connections import (
    database_path,
    is_filled,
    make_private_file,
    open_connection,
    optimize,
)
from shared_context_server.storage.sqlite.engine.filesystem import require_shareable
from shared_context_server.storage.sqlite.engine.migrations import (
    MIGRATIONS_DIR,
    apply_migrations,
    read_status,
    require_ours,
)
from shared_context_server.storage.sqlite.engine.opened_file import (
    FileId,
    OpenedFile,
    find_file_id,
    is_log_stale,
    set_stale_log_aside,
)
from shared_context_server.storage.sqlite.engine.readers import Readers
from shared_context_server.storage.sqlite.engine.work import Engine
from shared_context_server.storage.sqlite.engine.writer import Writer
from shared_context_server.storage.sqlite.expiry import Expiry
from shared_context_server.storage.sqlite.fleet import Fleet
from shared_context_server.storage.sqlite.in_memory import open_private_directory
from shared_context_server.storage.sqlite.inspection import inspect_sqlite
from shared_context_server.storage.sqlite.leases import Leases
from shared_context_server.storage.sqlite.maintenance import Maintenance
from shared_context_server.storage.sqlite.memory import Memory
from shared_context_server.storage.sqlite.messages import Messages
from shared_context_server.storage.sqlite.sessions import Sessions
from shared_context_server.storage.sqlite.tasks import Tasks
from shared_context_server.storage.sqlite.transfer import SqliteCopier
from shared_context_server.storage.sqlite.usage import recount_sqlite
from shared_context_server.storage.sqlite.vacuum import set_incremental, vacuum_sqlite

__all__ = ["BACKEND", "migrate_sqlite", "open_sqlite", "sqlite_schema_status"]

_DESCRIPTORS_OF_A_CONNECTION = 3  # the database, its log and its shared memory
_MIGRATION_WAIT_S = 60.0  # how long a start waits for another process that is migrating


@contextlib.asynccontextmanager
async def open_sqlite(settings: Settings, expected: FileId | None = None) -> AsyncIterator[Store]:
    """Open the store that `settings.storage_url` names, migrated, for a with block.

    With `expected`, open only that file, which was migrated before; create none. Raises
    ConfigurationError as migrate_sqlite does, and if the file is not the expected one.
    """
    if settings.is_in_memory:
        async with _open_in_memory(settings) as store:
            yield store
        return
    path = database_path(settings)
    if expected is None:
        await asyncio.to_thread(migrate_sqlite, settings)
    elif find_file_id(path) != expected:
        raise ConfigurationError(
            f"The database {path} has been removed or replaced since the server was started."
        )
    file = OpenedFile(path)

    def open_writer() -> sqlite3.Connection:
        connection = open_connection(path, settings, query_only=False)
        optimize(connection)
        connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
        file.note()
        return connection

    def open_reader() -> sqlite3.Connection:
        # Another file than the writer's must not be opened: SQLite would apply our log to it.
        file.require_in_place(at_once=True)
        return open_connection(path, settings, query_only=True)

    wait_s = settings.sqlite_timeout
    lock_wait_s = settings.sqlite_busy_timeout_ms / 1000
    writer = Writer(open_writer, file, wait_s=wait_s, lock_wait_s=lock_wait_s)
    with _explain_errors(path):
        await writer.start()
    readers = Readers(open_reader, settings.sqlite_readers, file, wait_s=wait_s)
    store = _make_store(Engine(writer, readers, path.with_name(f"{path.name}.bus")))
    try:
        yield store
    finally:
        # A server that is cancelled still has to finish its writes.
        with anyio.CancelScope(shield=True):
            await store.maintenance.aclose()


@contextlib.asynccontextmanager
async def _open_in_memory(settings: Settings) -> AsyncIterator[Store]:
    with open_private_directory() as directory:
        url = f"sqlite:///{directory / 'shared_context.db'}"
        async with open_sqlite(settings.model_copy(update={"database_url": url})) as store:
            yield store


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
async def open_sqlite_copier(settings: Settings, *, read_only: bool) -> AsyncIterator[SqliteCopier]:
    """Open a migrated database for copying. Raises ConfigurationError."""
    path = database_path(settings)
    # Reading the whole file through a memory map would make all of it resident.
    settings = settings.model_copy(update={"sqlite_mmap_mb": 0})
    copier = SqliteCopier(lambda: open_connection(path, settings, query_only=read_only))
    try:
        with _explain_errors(path):
            await copier.start()
        yield copier
    finally:
        copier.close()


def migrate_sqlite(
    settings: Settings,
    migrations_dir: Path = MIGRATIONS_DIR,
    *,
    check_directory: Callable[[Path], None] = require_shareable,
) -> list[str]:
    """Create the database if it is missing and bring its schema up to date; return the names of the
    applied migrations. Several processes may do so at once.

    Raises ConfigurationError, having changed nothing: the directory is not usable or belongs to
    another user, the file is not a database or is another program's, a migration fails, or the
    schema is newer than this program.
    """
    path = database_path(settings)
    if is_filled(path) and not is_log_stale(path):
        # Before anything is written next to it: a lock, a probe, a switch to WAL.
        with (
            _explain_errors(path),
            contextlib.closing(open_connection(path, settings, query_only=True)) as connection,
        ):
            require_ours(connection)
    make_private_file(path, settings)
    check_directory(path.parent)
    try:
        # SQLite's own lock does not cover the switch to WAL.
        with (
            filelock.FileLock(f"{path}.lock", timeout=_MIGRATION_WAIT_S, mode=0o600),
            _without_stale_log(path),
            _explain_errors(path),
            contextlib.closing(open_connection(path, settings, query_only=False)) as connection,
        ):
            if not is_filled(path):
                set_incremental(connection)
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise ConfigurationError(f"The database {path} cannot use WAL; its mode is {mode}.")
            return apply_migrations(connection, load_migrations(migrations_dir))
    except filelock.Timeout as exc:
        raise ConfigurationError(
            f"Another process has been migrating {path} for {_MIGRATION_WAIT_S:.0f} s."
        ) from exc
    except OSError as exc:
        raise ConfigurationError(f"The database {path} cannot be locked: {exc.strerror}.") from exc


def identify_sqlite(settings: Settings) -> FileId | None:
    """Return which file the database is now; None if there is none, or if it is in memory."""
    return None if settings.is_in_memory else find_file_id(database_path(settings))


def sqlite_schema_status(settings: Settings, migrations_dir: Path = MIGRATIONS_DIR) -> SchemaStatus:
    """Return the schema's version. Changes and creates nothing. Raises ConfigurationError."""
    path = database_path(settings)
    migrations = load_migrations(migrations_dir)
    if not is_filled(path):
        return SchemaStatus(current=0, latest=len(migrations))
    with (
        _explain_errors(path),
        contextlib.closing(open_connection(path, settings, query_only=True)) as connection,
    ):
        return read_status(connection, migrations)


@contextlib.contextmanager
def _without_stale_log(path: Path) -> Iterator[None]:
    set_stale_log_aside(path)
    yield


@contextlib.contextmanager
def _explain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise ConfigurationError(f"The database {path} cannot be opened: {exc}.") from exc


def _count_descriptors(settings: Settings) -> int:
    return (settings.sqlite_readers + 1) * _DESCRIPTORS_OF_A_CONNECTION


def _find_directory(settings: Settings) -> Path | None:
    return None if settings.is_in_memory else database_path(settings).parent


BACKEND = Backend(
    open_store=open_sqlite,
    open_copier=open_sqlite_copier,
    migrate=migrate_sqlite,
    find_schema_status=sqlite_schema_status,
    identify=identify_sqlite,
    back_up=back_up_sqlite,
    restore=restore_sqlite,
    vacuum=vacuum_sqlite,
    count_descriptors=_count_descriptors,
    inspect=inspect_sqlite,
    recount=recount_sqlite,
    find_directory=_find_directory,
)
