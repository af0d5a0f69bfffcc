"""Where everything is kept. Only this module knows which backends there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings
from shared_context_server.storage.contract import Store
from shared_context_server.storage.migrations import SchemaStatus
from shared_context_server.storage.sqlite import (
    FileId,
    Restored,
    back_up_sqlite,
    identify_sqlite,
    migrate_sqlite,
    open_sqlite,
    open_sqlite_copier,
    restore_sqlite,
    sqlite_schema_status,
)
from shared_context_server.storage.transfer.copying import Copier

__all__ = [
    "Copier",
    "SchemaStatus",
    "StorageId",
    "Store",
    "back_up_storage",
    "find_schema_status",
    "identify_storage",
    "migrate_storage",
    "open_copier",
    "open_storage",
    "restore_storage",
]


StorageId = FileId
"""What tells one database at an address from the next one there."""


@asynccontextmanager
async def open_storage(
    settings: Settings, expected: StorageId | None = None
) -> AsyncIterator[Store]:
    """Open the store that `settings.storage_url` names, migrated and ready, for a with block.

    With `expected`, from identify_storage, only the one that was there then: none is created. Raises
    ConfigurationError for an unknown scheme, a schema newer than this program, a file system that
    cannot lock, or another store than the expected one.
    """
    if _is_postgres(settings):
        async with _postgres().open_postgres(settings) as postgres:
            yield postgres
    else:
        async with open_sqlite(settings, expected) as sqlite:
            yield sqlite


@asynccontextmanager
async def open_copier(settings: Settings, *, read_only: bool) -> AsyncIterator[Copier]:
    """Open that store to move data: as a source, which is `read_only` and has to be there with its
    schema up to date, or as a destination, which is migrated first. Raises ConfigurationError.
    """
    if read_only:
        _require_schema(await asyncio.to_thread(find_schema_status, settings))
    else:
        await asyncio.to_thread(migrate_storage, settings)
    if _is_postgres(settings):
        async with _postgres().open_postgres_copier(settings) as postgres:
            yield postgres
    else:
        async with open_sqlite_copier(settings, read_only=read_only) as sqlite:
            yield sqlite


def identify_storage(settings: Settings) -> StorageId | None:
    """Which database is at the address just now; None on PostgreSQL, whose server keeps them apart."""
    return None if _is_postgres(settings) else identify_sqlite(settings)


def back_up_storage(settings: Settings, destination: Path, *, force: bool) -> int:
    """Write a checked copy of the database to a new file, beside servers that run; its size in bytes.

    Raises ConfigurationError if the name is taken, unless `force`, or on PostgreSQL, which has tools of
    its own; CopyError if the copy cannot be written or is not sound.
    """
    if _is_postgres(settings):
        raise ConfigurationError(
            "DATABASE_URL names PostgreSQL: back it up with pg_dump --format=custom (or `export`)."
        )
    return back_up_sqlite(settings, destination, force=force)


def restore_storage(settings: Settings, source: Path) -> Restored:
    """Put such a copy in the place of the database while nobody has it open.

    Raises ConfigurationError, having changed nothing, if the copy is not sound, not of this program or
    newer than it, if a process has the database open, or on PostgreSQL; CopyError if the disk fails.
    """
    if _is_postgres(settings):
        raise ConfigurationError(
            "DATABASE_URL names PostgreSQL: restore it with pg_restore (or `import`)."
        )
    return restore_sqlite(settings, source)


def migrate_storage(settings: Settings) -> list[str]:
    """Bring the schema up to date, as open_storage does; the names of the migrations applied."""
    if _is_postgres(settings):
        applied: list[str] = _postgres().migrate_postgres(settings)
        return applied
    return migrate_sqlite(settings)


def find_schema_status(settings: Settings) -> SchemaStatus:
    """Where the schema stands; changes and creates nothing. Raises ConfigurationError."""
    if _is_postgres(settings):
        status: SchemaStatus = _postgres().postgres_schema_status(settings)
        return status
    return sqlite_schema_status(settings)


def _require_schema(status: SchemaStatus) -> None:
    if status.current == 0:
        raise ConfigurationError("There is no database to copy from.")
    if status.current < status.latest:
        raise ConfigurationError(
            f"The database to copy from has schema {status.current} of {status.latest}: bring it up "
            "to date first, with migrate."
        )


def _is_postgres(settings: Settings) -> bool:
    """Which of the two; raises ConfigurationError for a scheme that is neither's."""
    scheme = settings.storage_url.partition(":")[0]
    if scheme not in ("sqlite", "postgresql", "postgres"):
        raise ConfigurationError(
            f"DATABASE_URL: no storage backend for {scheme!r}; use sqlite:/// or postgresql://"
        )
    return scheme != "sqlite"


def _postgres() -> ModuleType:
    """The PostgreSQL store, whose driver is an extra."""
    try:
        from shared_context_server.storage import postgres  # noqa: PLC0415 - an optional extra
    except ImportError as exc:
        raise ConfigurationError(
            "DATABASE_URL: PostgreSQL needs the extra postgres. Install it from where the server "
            "came from: pip install 'CHECKOUT[postgres]', or 'WHEEL[postgres]', with the path of either."
        ) from exc
    return postgres
