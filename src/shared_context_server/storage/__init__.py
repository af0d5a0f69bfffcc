"""Open, migrate, back up and copy the store that DATABASE_URL names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings
from shared_context_server.storage.backends import Restored, StorageId, find_backend
from shared_context_server.storage.contract import Store
from shared_context_server.storage.migrations import SchemaStatus
from shared_context_server.storage.transfer.copying import Copier

__all__ = [
    "Copier",
    "SchemaStatus",
    "StorageId",
    "Store",
    "back_up_storage",
    "count_descriptors",
    "find_schema_status",
    "identify_storage",
    "migrate_storage",
    "open_copier",
    "open_storage",
    "restore_storage",
]


@asynccontextmanager
async def open_storage(
    settings: Settings, expected: StorageId | None = None
) -> AsyncIterator[Store]:
    """Open the store that `settings.storage_url` names, migrated and ready, for a with block.

    With `expected`, from identify_storage, only the one that was there then: none is created. Raises
    ConfigurationError for an unknown scheme, a schema newer than this program, a file system that
    cannot lock, or another store than the expected one.
    """
    async with find_backend(settings).open_store(settings, expected) as store:
        yield store


@asynccontextmanager
async def open_copier(settings: Settings, *, read_only: bool) -> AsyncIterator[Copier]:
    """Open that store to move data: as a source, which is `read_only` and has to be there with its
    schema up to date, or as a destination, which is migrated first. Raises ConfigurationError.
    """
    if read_only:
        _require_schema(await asyncio.to_thread(find_schema_status, settings))
    else:
        await asyncio.to_thread(migrate_storage, settings)
    async with find_backend(settings).open_copier(settings, read_only=read_only) as copier:
        yield copier


def identify_storage(settings: Settings) -> StorageId | None:
    """Which database is at the address just now; None on PostgreSQL, whose server keeps them apart."""
    return find_backend(settings).identify(settings)


def back_up_storage(settings: Settings, destination: Path, *, force: bool) -> int:
    """Write a checked copy of the database to a new file, beside servers that run; its size in bytes.

    Raises ConfigurationError if the name is taken, unless `force`, or on PostgreSQL, which has tools of
    its own; CopyError if the copy cannot be written or is not sound.
    """
    return find_backend(settings).back_up(settings, destination, force=force)


def restore_storage(settings: Settings, source: Path) -> Restored:
    """Put such a copy in the place of the database while nobody has it open.

    Raises ConfigurationError, having changed nothing, if the copy is not sound, not of this program or
    newer than it, if a process has the database open, or on PostgreSQL; CopyError if the disk fails.
    """
    return find_backend(settings).restore(settings, source)


def migrate_storage(settings: Settings) -> list[str]:
    """Bring the schema up to date, as open_storage does; the names of the migrations applied."""
    return find_backend(settings).migrate(settings)


def find_schema_status(settings: Settings) -> SchemaStatus:
    """Where the schema stands; changes and creates nothing. Raises ConfigurationError."""
    return find_backend(settings).find_schema_status(settings)


def count_descriptors(settings: Settings) -> int:
    """How many file descriptors the store of one process may have open."""
    return find_backend(settings).count_descriptors(settings)


def _require_schema(status: SchemaStatus) -> None:
    if status.current == 0:
        raise ConfigurationError("There is no database to copy from.")
    if status.current < status.latest:
        raise ConfigurationError(
            f"The database to copy from has schema {status.current} of {status.latest}: bring it up "
            "to date first, with migrate."
        )
