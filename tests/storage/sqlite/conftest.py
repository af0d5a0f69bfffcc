"""An SQLite file with our schema, below the level of the store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from shared_context_server.settings import Settings
from shared_context_server.storage.sqlite import migrate_sqlite
from shared_context_server.storage.sqlite.engine.connections import database_path, open_connection

Connect = Callable[[], sqlite3.Connection]


@pytest.fixture
def database(settings: Settings) -> Path:
    """A migrated, empty database."""
    migrate_sqlite(settings)
    return database_path(settings)


@pytest.fixture
def open_writer(database: Path, settings: Settings) -> Connect:
    return lambda: open_connection(database, settings, query_only=False)


@pytest.fixture
def open_reader(database: Path, settings: Settings) -> Connect:
    return lambda: open_connection(database, settings, query_only=True)


@pytest.fixture
def outsider(open_writer: Connect) -> Iterator[sqlite3.Connection]:
    """A connection of the test's own, as another process would have it."""
    with closing(open_writer()) as connection:
        yield connection
