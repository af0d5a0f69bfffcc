"""Open, migrate, back up and copy the store that DATABASE_URL names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings
from shared_context_server.storage.backends import (
    Inspection,
    Restored,
    StorageId,
    Vacuumed,
    find_backend,
)
from shared_context_server.storage.contract import Miscount, Store
from shared_context_server.storage.migrations import SchemaStatus
from shared_context_server.storage.transfer.copying import Copier

__all__ = [
    "Copier",
    "Inspection",
    "Miscount",
    "Restored",
    "SchemaStatus",
    "StorageId",
    "Store",
    "Vacuumed",
    "back_up_storage",
    "count_descriptors",
    "find_directory",
    "find_schema_status",
    "identify_storage",
    "inspect_storage",
    "is_one_file",
    "migrate_storage",
    "open_copier",
    "open_storage",
    "recount_storage",
    "restore_storage",
    "vacuum_storage",
]

_NO_FILE = "DATABASE_URL names a database that is no file."


@asynccontextmanager
async def open_storage(
    settings: Settings, expected: StorageId | None = None
) -> AsyncIterator[Store]:
    """Open the store that `settings.storage_url` names, migrated, for a with block.

    With `expected`, from identify_storage, open only that database and never create one. Raises
    ConfigurationError for an unknown scheme, a schema newer than this program, a file system that
    cannot lock, or a database other than the expected one.
    """
    async with find_backend(settings).open_store(settings, expected) as store:
        yield store


@asynccontextmanager
async def open_copier(settings: Settings, *, read_only: bool) -> AsyncIterator[Copier]:
    """Open that store to copy from or to it. A source is `read_only`, has to exist, and needs an
    up-to-date schema. A destination is migrated first. Raises ConfigurationError."""
    if read_only:
        _require_schema(await asyncio.to_thread(find_schema_status, settings))
    else:
        await asyncio.to_thread(migrate_storage, settings)
    async with find_backend(settings).open_copier(settings, read_only=read_only) as copier:
        yield copier


def identify_storage(settings: Settings) -> StorageId | None:
    """Return which database is at the address now; None on PostgreSQL, whose server keeps databases
    apart."""
    return find_backend(settings).identify(settings)


def is_one_file(settings: Settings) -> bool:
    """Whether the database is a file, which back_up_storage and restore_storage copy."""
    return find_backend(settings).back_up is not None


def back_up_storage(settings: Settings, destination: Path, *, force: bool) -> int:
    """Write a checked copy of the database file to a new file while servers run; return its size in
    bytes.

    Raises ConfigurationError if the file exists, unless `force`, or if the database is no file;
    CopyError if the copy cannot be written or is damaged.
    """
    back_up = find_backend(settings).back_up
    if back_up is None:
        raise ConfigurationError(_NO_FILE)
    return back_up(settings, destination, force=force)


def restore_storage(settings: Settings, source: Path) -> Restored:
    """Replace the database file with such a copy, while no process has it open.

    Raises ConfigurationError, having changed nothing, if the copy is damaged, is not of this
    program or is newer than it, if a process has the database open, or if the database is no file;
    CopyError if the disk fails.
    """
    restore = find_backend(settings).restore
    if restore is None:
        raise ConfigurationError(_NO_FILE)
    return restore(settings, source)


def vacuum_storage(settings: Settings) -> Vacuumed:
    """Give the space of deleted rows back, while servers use the database; return its size before
    and after.

    Raises ConfigurationError if there is no database of ours, or if the file has to be written anew
    while a process has it open.
    """
    if find_schema_status(settings).current == 0:
        raise ConfigurationError("There is no database to vacuum.")
    return find_backend(settings).vacuum(settings)


def migrate_storage(settings: Settings) -> list[str]:
    """Bring the schema up to date, as open_storage does; return the names of the applied
    migrations."""
    return find_backend(settings).migrate(settings)


def find_schema_status(settings: Settings) -> SchemaStatus:
    """Return the schema's version. Changes and creates nothing. Raises ConfigurationError."""
    return find_backend(settings).find_schema_status(settings)


def count_descriptors(settings: Settings) -> int:
    """Return how many file descriptors the store of one process may have open."""
    return find_backend(settings).count_descriptors(settings)


def find_directory(settings: Settings) -> Path | None:
    """Return the directory whose disk the database fills; None if it is in memory or on PostgreSQL,
    whose disk only its own server knows."""
    return find_backend(settings).find_directory(settings)


def inspect_storage(settings: Settings, *, is_thorough: bool) -> Inspection:
    """Look for damage and for wrong settings of the database, while servers may use it. Changes
    nothing. The schema has to be up to date.

    `is_thorough` also compares each index with its table, which takes several times as long. Raises
    ConfigurationError if the database cannot be read.
    """
    return find_backend(settings).inspect(settings, is_thorough=is_thorough)


def recount_storage(settings: Settings, *, mends: bool) -> list[Miscount]:
    """Compare the counters of sessions and agents with what is stored, on one snapshot while servers may
    use it; return those that were wrong. `mends`: correct them. The schema has to be up to date.

    Raises ConfigurationError if the database cannot be read, or not be written.
    """
    return find_backend(settings).recount(settings, mends=mends)


def _require_schema(status: SchemaStatus) -> None:
    if status.current == 0:
        raise ConfigurationError("There is no database to copy from.")
    if status.current < status.latest:
        raise ConfigurationError(
            f"The database to copy from has schema {status.current} of {status.latest}: bring it up "
            "to date first, with migrate."
        )
