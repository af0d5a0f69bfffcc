"""Databases with tables of another program are left as they are; both stores."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings
from shared_context_server.storage import (
    find_schema_status,
    migrate_storage,
    open_copier,
    open_storage,
)
from shared_context_server.storage.sqlite.engine.connections import database_path
from tests.postgres import DatabaseServer
from tests.storage.builders import add_session
from tests.storage.conftest import STORES

REFUSED = "tables of another program"
THEIRS = {
    "a table": "CREATE TABLE users (id INTEGER)",
    "a view": "CREATE VIEW one AS SELECT 1 AS id",
    "a table of migrations": "CREATE TABLE schema_migrations (version TEXT PRIMARY KEY)",
    "a table with our name": "CREATE TABLE sessions (id INTEGER)",
}


@pytest.fixture(params=STORES)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Of a database of each kind that is there and has no tables."""
    if request.param == "sqlite":
        path = tmp_path / "app.db"
        path.touch()
        yield Settings(data_dir=tmp_path / "data", database_url=f"sqlite:///{path}")
        return
    server: DatabaseServer = request.getfixturevalue("postgres")
    with server.new_database(is_migrated=False) as found:
        yield Settings(data_dir=tmp_path / "data", **found)


def execute(settings: Settings, sql: str) -> list[tuple[object, ...]]:
    """What another program does there."""
    if settings.storage_url.startswith("sqlite"):
        with closing(sqlite3.connect(database_path(settings))) as connection, connection:
            return connection.execute(sql).fetchall()
    return asyncio.run(_execute_postgres(settings.storage_url, sql))


async def _execute_postgres(url: str, sql: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(url, statement_cache_size=0)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


def list_tables(settings: Settings) -> list[tuple[object, ...]]:
    if settings.storage_url.startswith("sqlite"):
        return execute(settings, "SELECT name FROM sqlite_schema ORDER BY 1")
    return execute(
        settings,
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
    )


def open_store(settings: Settings) -> None:
    async def run() -> None:
        async with open_storage(settings):
            pass

    asyncio.run(run())


def open_to_copy(settings: Settings, *, read_only: bool) -> None:
    async def run() -> None:
        async with open_copier(settings, read_only=read_only):
            pass

    asyncio.run(run())


WAYS: dict[str, Callable[[Settings], object]] = {
    "open_storage": open_store,
    "migrate": migrate_storage,
    "status": find_schema_status,
    "import": lambda settings: open_to_copy(settings, read_only=False),
    "export": lambda settings: open_to_copy(settings, read_only=True),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("theirs", THEIRS.values(), ids=THEIRS)
def test_tables_of_another_program_are_refused_and_left_as_they_are(
    empty: Settings, tmp_path: Path, theirs: str, way: Callable[[Settings], object]
) -> None:
    execute(empty, theirs)
    before = list_tables(empty)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    times = {path: path.stat().st_mtime_ns for path in files}
    with pytest.raises(ConfigurationError, match=REFUSED) as caught:
        way(empty)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
    assert {path: path.stat().st_mtime_ns for path in files} == times
    assert list_tables(empty) == before


def test_an_empty_database_is_taken(empty: Settings) -> None:
    assert find_schema_status(empty).current == 0
    assert migrate_storage(empty)


async def test_our_own_database_is_taken_also_with_tables_beside_ours(empty: Settings) -> None:
    await asyncio.to_thread(migrate_storage, empty)
    await asyncio.to_thread(execute, empty, THEIRS["a table"])
    async with open_storage(empty) as store:
        await add_session(store)


def test_tables_that_are_still_in_the_log_of_sqlite_are_seen(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url=f"sqlite:///{tmp_path / 'app.db'}")
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(THEIRS["a table"])
        with pytest.raises(ConfigurationError, match=REFUSED):
            migrate_storage(settings)


def test_what_an_extension_brings_is_nobody_s(postgres: DatabaseServer, tmp_path: Path) -> None:
    with postgres.new_database(is_migrated=False) as found:
        settings = Settings(data_dir=tmp_path, **found)
        execute(settings, "CREATE TABLE of_extension (id INTEGER)")
        # As PostGIS' spatial_ref_sys is; this server carries plpgsql and no other extension.
        execute(settings, "ALTER EXTENSION plpgsql ADD TABLE of_extension")
        assert migrate_storage(settings)
