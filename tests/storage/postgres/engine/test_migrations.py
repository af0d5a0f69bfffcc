"""Migrations of a PostgreSQL database, by any number of replicas at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings
from shared_context_server.storage import (
    SchemaStatus,
    Store,
    find_schema_status,
    migrate_storage,
    open_storage,
)
from shared_context_server.storage.migrations import load_migrations
from shared_context_server.storage.postgres.engine.migrations import (
    MIGRATIONS_DIR,
    apply_migrations,
)
from tests.postgres import DatabaseServer
from tests.storage.builders import ALICE, add_session

ALL = [migration.name for migration in load_migrations(MIGRATIONS_DIR)]


@pytest.fixture
def settings(postgres: DatabaseServer, tmp_path: Path) -> Iterator[Settings]:
    """Of a database without tables."""
    with postgres.new_database(is_migrated=False) as found:
        yield Settings(data_dir=tmp_path / "data", **found)


async def execute(settings: Settings, sql: str, *arguments: object) -> list[Any]:
    connection = await asyncpg.connect(settings.storage_url, statement_cache_size=0)
    try:
        return list(await connection.fetch(sql, *arguments))
    finally:
        await connection.close()


def test_an_empty_database_is_migrated_once(settings: Settings) -> None:
    assert find_schema_status(settings) == SchemaStatus(current=0, latest=len(ALL))
    assert migrate_storage(settings) == ALL
    assert migrate_storage(settings) == []
    assert find_schema_status(settings) == SchemaStatus(current=len(ALL), latest=len(ALL))


async def test_of_ten_replicas_that_start_at_once_one_migrates(settings: Settings) -> None:
    applied = await asyncio.gather(
        *(asyncio.to_thread(migrate_storage, settings) for _ in range(10))
    )
    assert sorted(applied, key=len) == [[]] * 9 + [ALL]


async def test_ten_replicas_can_open_an_empty_database_at_once(settings: Settings) -> None:
    async def start() -> None:
        async with open_storage(settings) as store:
            await store.maintenance.ping()

    await asyncio.gather(*(start() for _ in range(10)))


async def test_a_newer_schema_is_refused(settings: Settings) -> None:
    migrate_storage(settings)
    await execute(
        settings, "INSERT INTO schema_migrations VALUES ($1, $2, 'x', 0)", len(ALL) + 1, "next"
    )
    with pytest.raises(ConfigurationError, match="newer version"):
        migrate_storage(settings)
    with pytest.raises(ConfigurationError, match="newer version"):
        async with open_storage(settings):
            pass


async def test_a_changed_migration_is_refused(settings: Settings) -> None:
    migrate_storage(settings)
    await execute(settings, "UPDATE schema_migrations SET checksum = 'x' WHERE number = 1")
    with pytest.raises(ConfigurationError, match="must not change"):
        migrate_storage(settings)


async def test_a_migration_that_fails_leaves_nothing(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "0001_good.sql").write_text("CREATE TABLE good (a INTEGER);")
    (tmp_path / "0002_bad.sql").write_text("CREATE TABLE half (a INTEGER); SELECT nonsense;")
    connection = await asyncpg.connect(settings.storage_url, statement_cache_size=0)
    try:
        with pytest.raises(ConfigurationError, match=r"0002_bad failed.*nonsense"):
            await apply_migrations(connection, load_migrations(tmp_path))
    finally:
        await connection.close()
    tables = await execute(settings, "SELECT 1 FROM pg_tables WHERE schemaname = 'public'")
    assert tables == []


@pytest.mark.parametrize(
    "url", ["postgresql://nobody:hidden-password@127.0.0.1:1/db", "postgresql://[::bad/db"]
)
def test_a_database_that_cannot_be_reached_is_named_without_its_password(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared_context_server.storage.postgres.START_WAIT_S", 0.1)
    with pytest.raises(ConfigurationError, match="DATABASE_URL") as caught:
        migrate_storage(Settings(database_url=url))
    assert "hidden-password" not in str(caught.value)


def test_a_missing_database_is_said_to_be_missing(settings: Settings) -> None:
    url = settings.storage_url.rpartition("/")[0] + "/no_such_database"
    with pytest.raises(ConfigurationError, match="no_such_database"):
        migrate_storage(Settings(database_url=url))


async def test_a_migration_fails_no_call_of_a_replica_that_runs(settings: Settings) -> None:
    """It has prepared statements that do not fit any more."""

    async def count_sessions(store: Store) -> int:
        page = await store.sessions.list_visible(ALICE, status=None, created_by=None, limit=9)
        return len(page.items)

    async with open_storage(settings) as store:
        await add_session(store)
        assert await count_sessions(store) == 1
        await execute(settings, "ALTER TABLE sessions ALTER COLUMN metadata TYPE VARCHAR")
        assert await count_sessions(store) == 1


async def test_a_database_that_cannot_hold_every_text_is_refused(settings: Settings) -> None:
    await execute(
        settings,
        "CREATE DATABASE latin1 TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'",
    )
    url = settings.storage_url.rpartition("/")[0] + "/latin1"
    try:
        with pytest.raises(ConfigurationError, match="encoding LATIN1"):
            migrate_storage(settings.model_copy(update={"database_url": url}))
    finally:
        await execute(settings, "DROP DATABASE latin1 WITH (FORCE)")


# What a migration makes of data that is there

_FILL = (
    """
    INSERT INTO sessions (id, purpose, access, status, created_by, created_at, invited, metadata)
    VALUES ('{session}', 'p', 'open', 'active', 'a', 0, '[]', '{{}}')""",
    """
    INSERT INTO messages (session_id, seq, sender, sender_type, visibility, created_at, recipients,
                          metadata, content)
    {before} SELECT '{session}', n, 'agent' || n % 3, 'type' || n % 2,
           CASE n % 4 WHEN 0 THEN 'private' WHEN 1 THEN 'agent_only' WHEN 2 THEN 'admin_only'
                      ELSE 'public' END,
           n * 7919 % 1000003, '["bob","agent1"]', '{{}}', 'x' FROM {numbers}""",
)
_COUNTED = (
    "SELECT name, agent_id, first_seq FROM writers WHERE session_id = '{session}' ORDER BY 1, 2",
    "SELECT name, seq, ordinal, created_at FROM audience WHERE session_id = '{session}' ORDER BY 1, 2",
    "SELECT up_to_seq, earliest, latest FROM time_ranges WHERE session_id = '{session}' ORDER BY 1",
)


async def test_messages_of_an_older_schema_are_counted_as_new_ones_are(settings: Settings) -> None:
    connection = await asyncpg.connect(settings.storage_url, statement_cache_size=0)
    try:
        migrations = load_migrations(MIGRATIONS_DIR)
        await apply_migrations(connection, migrations[:1])
        await fill_session(connection, "old")
        assert (await apply_migrations(connection, migrations))[0] == "0002_identity"
        await fill_session(connection, "new")
        for statement in _COUNTED:
            old, new = [
                await connection.fetch(statement.format(session=name)) for name in ("old", "new")
            ]
            assert old == new
        assert len(new) == 2
    finally:
        await connection.close()


async def fill_session(connection: Any, name: str) -> None:
    numbers = "generate_series(1, 2500) AS n"
    for statement in _FILL:
        await connection.execute(statement.format(session=name, before="", numbers=numbers))
