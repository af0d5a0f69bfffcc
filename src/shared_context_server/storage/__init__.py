"""Where everything is kept. Only this module knows which backends there are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings
from shared_context_server.storage.base import Storage
from shared_context_server.storage.migrations import SchemaStatus
from shared_context_server.storage.sqlite import (
    migrate_sqlite,
    open_sqlite,
    sqlite_schema_status,
)

__all__ = ["SchemaStatus", "Storage", "find_schema_status", "migrate_storage", "open_storage"]


@asynccontextmanager
async def open_storage(settings: Settings) -> AsyncIterator[Storage]:
    """Open the store that `settings.storage_url` names, migrated and ready, for a with block.

    Raises ConfigurationError for an unknown scheme, a schema newer than this program, or a
    file system that cannot lock.
    """
    _require_known_scheme(settings)
    async with open_sqlite(settings) as storage:
        yield storage


def migrate_storage(settings: Settings) -> list[str]:
    """Bring the schema up to date, as open_storage does; the names of the migrations applied."""
    _require_known_scheme(settings)
    return migrate_sqlite(settings)


def find_schema_status(settings: Settings) -> SchemaStatus:
    """Where the schema stands; changes and creates nothing. Raises ConfigurationError."""
    _require_known_scheme(settings)
    return sqlite_schema_status(settings)


def _require_known_scheme(settings: Settings) -> None:
    scheme = settings.storage_url.partition(":")[0]
    if scheme != "sqlite":
        raise ConfigurationError(f"DATABASE_URL: no storage backend for {scheme!r}; use sqlite:///")
