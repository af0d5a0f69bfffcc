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
    find_backend,
)
from shared_context_server.storage.contract import Store
from shared_context_server.storage.migrations import SchemaStatus
from shared_context_server.storage.transfer.copying import Copier

__all__ = [
    "Copier",
    "Inspection",
    "SchemaStatus",
    "StorageId",
    "Store",
    "back_up_storage",
    "count_descriptors",
    "find_directory",
    "find_schema_status",
    "identify_storage",
    "inspect_storage",
    "migrate_storage",
    "open_copier",
    "open_storage",
    "restore_storage",
]


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


def back_up_storage(settings: Settings, destination: Path, *, force: bool) -> int:
    """Write a checked copy of the database to a new file while servers run; return its size in
    bytes.

    Raises ConfigurationError if the file exists, unless `force`, or on PostgreSQL, which has tools
    of its own; CopyError if the copy cannot be written or is damaged.
    """
    return find_backend(settings).back_up(settings, destination, force=force)


def restore_storage(settings: Settings, source: Path) -> Restored:
    """Replace the database with such a copy, while no process has it open.

    Raises ConfigurationError, having changed nothing, if the copy is damaged, is not of this
    program or is newer than it, if a process has the database open, or on PostgreSQL; CopyError if
    the disk fails.
    """
    return find_backend(settings).restore(settings, source)


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


def _require_schema(status: SchemaStatus) -> None:
    if status.current == 0:
        raise ConfigurationError("There is no database to copy from.")
    if status.current < status.latest:
        raise ConfigurationError(
            f"The database to copy from has schema {status.current} of {status.latest}: bring it up "
            "to date first, with migrate."
        )
