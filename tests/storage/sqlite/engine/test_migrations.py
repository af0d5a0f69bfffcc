"""Numbered migrations, and the first start of a data directory."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import filelock
import pytest

from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings
from shared_context_server.storage.migrations import SchemaStatus, load_migrations
from shared_context_server.storage.sqlite import (
    migrate_sqlite,
    open_sqlite,
    sqlite_schema_status,
)
from shared_context_server.storage.sqlite.engine.connections import database_path, open_connection
from shared_context_server.storage.sqlite.engine.migrations import (
    MIGRATIONS_DIR,
    apply_migrations,
    split_statements,
)

FIRST = "CREATE TABLE one (a);\nINSERT INTO one VALUES (1);\n"
SECOND = "ALTER TABLE one ADD COLUMN b DEFAULT 7;\n"


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    """A directory with one migration."""
    directory = tmp_path / "migrations"
    directory.mkdir()
    (directory / "0001_first.sql").write_text(FIRST)
    return directory


def query(settings: Settings, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database_path(settings))) as connection:
        return connection.execute(sql).fetchall()


def read_schema(settings: Settings) -> list[tuple[object, ...]]:
    return query(settings, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name")


def test_migrations_are_applied_once_and_named(settings: Settings, migrations: Path) -> None:
    assert sqlite_schema_status(settings, migrations) == SchemaStatus(current=0, latest=1)
    assert not settings.data_dir.exists()
    assert migrate_sqlite(settings, migrations) == ["0001_first"]
    (migrations / "0002_second.sql").write_text(SECOND)
    assert sqlite_schema_status(settings, migrations) == SchemaStatus(current=1, latest=2)
    assert migrate_sqlite(settings, migrations) == ["0002_second"]
    assert migrate_sqlite(settings, migrations) == []
    assert sqlite_schema_status(settings, migrations) == SchemaStatus(current=2, latest=2)
    assert query(settings, "SELECT * FROM one") == [(1, 7)]


def test_a_fresh_schema_equals_one_migrated_step_by_step(
    settings: Settings, tmp_path: Path
) -> None:
    stepwise = settings.model_copy(update={"data_dir": tmp_path / "stepwise"})
    steps = tmp_path / "steps"
    steps.mkdir()
    for path in sorted(MIGRATIONS_DIR.glob("*.sql")):
        (steps / path.name).write_bytes(path.read_bytes())
        assert migrate_sqlite(stepwise, steps) == [path.stem]
    migrate_sqlite(settings)
    assert read_schema(stepwise) == read_schema(settings)
    assert sqlite_schema_status(stepwise) == sqlite_schema_status(settings)


def test_nothing_is_made_in_a_directory_that_cannot_be_shared(
    settings: Settings, migrations: Path
) -> None:
    def check(directory: Path) -> None:
        raise ConfigurationError(f"{directory} cannot lock")

    with pytest.raises(ConfigurationError, match="cannot lock"):
        migrate_sqlite(settings, migrations, check_directory=check)
    assert sqlite_schema_status(settings, migrations).current == 0


def test_a_start_waits_for_another_that_is_migrating(settings: Settings, migrations: Path) -> None:
    settings.data_dir.mkdir()
    start = threading.Thread(target=migrate_sqlite, args=(settings, migrations))
    with filelock.FileLock(f"{database_path(settings)}.lock"):
        start.start()
        start.join(0.2)
        assert start.is_alive()
        assert sqlite_schema_status(settings, migrations).current == 0
    start.join(30)
    assert sqlite_schema_status(settings, migrations).current == 1


def test_a_changed_migration_is_refused(settings: Settings, migrations: Path) -> None:
    migrate_sqlite(settings, migrations)
    (migrations / "0001_first.sql").write_text(FIRST + "-- a harmless comment\n")
    for call in (migrate_sqlite, sqlite_schema_status):
        with pytest.raises(ConfigurationError, match="0001_first"):
            call(settings, migrations)


def test_line_endings_do_not_change_a_migration(settings: Settings, migrations: Path) -> None:
    migrate_sqlite(settings, migrations)
    (migrations / "0001_first.sql").write_bytes(FIRST.replace("\n", "\r\n").encode())
    assert migrate_sqlite(settings, migrations) == []


async def test_a_schema_newer_than_the_program_is_refused(
    settings: Settings, migrations: Path
) -> None:
    migrate_sqlite(settings)
    with closing(sqlite3.connect(database_path(settings))) as connection, connection:
        connection.execute(
            "INSERT INTO schema_migrations SELECT max(number) + 1, '9999_from_the_future', '', 0"
            " FROM schema_migrations"
        )
    for call in (migrate_sqlite, sqlite_schema_status):
        with pytest.raises(ConfigurationError, match="9999_from_the_future"):
            call(settings)
    with pytest.raises(ConfigurationError, match="newer"):
        async with open_sqlite(settings):
            pass


@pytest.mark.parametrize(
    "broken",
    [
        "CREATE TABLE two (a);\nCREATE TABLE two (a);\n",
        "CREATE TABLE two (a);\nINSERT INTO one VALUES (1, 2, 3, 4);\n",
        "CREATE TABLE two (a); CREATE TABLE three (a);\n",
        "CREATE TABLE two (a);\nSELECT 'unclosed;\n",
    ],
)
def test_a_failing_migration_is_named_and_leaves_nothing(
    settings: Settings, migrations: Path, broken: str
) -> None:
    migrate_sqlite(settings, migrations)
    before = read_schema(settings)
    (migrations / "0002_second.sql").write_text(SECOND)
    (migrations / "0003_broken.sql").write_text(broken)
    (migrations / "0004_never.sql").write_text("CREATE TABLE four (a);\n")
    with pytest.raises(ConfigurationError, match="0003_broken"):
        migrate_sqlite(settings, migrations)
    assert read_schema(settings) == before
    assert sqlite_schema_status(settings, migrations).current == 1


def test_statements_are_split_where_sqlite_says(settings: Settings, migrations: Path) -> None:
    trigger = (
        "CREATE TRIGGER copy AFTER INSERT ON one BEGIN\n"
        "    INSERT INTO two VALUES ('a;\nb'); -- not; the end\n"
        "    DELETE FROM one;\n"
        "END;\n"
    )
    text = f"-- first;\nCREATE TABLE two (a);\n\n/* ; */\n{trigger}\n-- the end\n"
    statements = list(split_statements(text))
    assert statements[0] == "-- first;\nCREATE TABLE two (a);\n"
    assert statements[1] == f"\n/* ; */\n{trigger}"
    (migrations / "0002_second.sql").write_text(text)
    migrate_sqlite(settings, migrations)
    with closing(sqlite3.connect(database_path(settings))) as connection, connection:
        connection.execute("INSERT INTO one VALUES (5)")
    assert query(settings, "SELECT a FROM two") == [("a;\nb",)]


def test_the_last_statement_needs_no_semicolon(settings: Settings, migrations: Path) -> None:
    (migrations / "0002_second.sql").write_text("CREATE TABLE two (a);\nCREATE TABLE three (a)")
    migrate_sqlite(settings, migrations)
    assert query(settings, "SELECT count(*) FROM two, three") == [(0,)]


@pytest.mark.parametrize("name", ["0003_gap.sql", "0001_twice.sql", "2_short.sql", "notes.sql"])
def test_migrations_are_numbered_without_a_gap(migrations: Path, name: str) -> None:
    (migrations / name).write_text("SELECT 1;\n")
    with pytest.raises(ConfigurationError, match=r"\.sql"):
        load_migrations(migrations)


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


def test_messages_of_an_older_schema_are_counted_as_new_ones_are(
    settings: Settings, tmp_path: Path
) -> None:
    migrate_sqlite(settings, older_migrations(tmp_path))
    fill_session(settings, "old")
    assert migrate_sqlite(settings)[0] == "0005_identity"
    fill_session(settings, "new")
    for statement in _COUNTED:
        old, new = (query(settings, statement.format(session=name)) for name in ("old", "new"))
        assert old == new
    assert len(new) == 2


def test_a_migration_costs_by_message_the_same_whatever_the_statistics_say(
    settings: Settings, tmp_path: Path
) -> None:
    def count_steps(size: int) -> int:
        own = settings.model_copy(update={"data_dir": tmp_path / str(size)})
        migrate_sqlite(own, older_migrations(tmp_path))
        fill_session(own, "small", size=2)
        with closing(open_connection(database_path(own), own, query_only=False)) as connection:
            connection.execute("ANALYZE")  # as a start did when there was little
        fill_session(own, "grown", size=size)
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1

        with closing(open_connection(database_path(own), own, query_only=False)) as connection:
            connection.set_progress_handler(count, 1)
            apply_migrations(connection, load_migrations(MIGRATIONS_DIR))
        return steps

    assert count_steps(3000) < 15 * count_steps(300)


def older_migrations(tmp_path: Path) -> Path:
    """A directory with the first migrations, whose databases hold messages."""
    older = tmp_path / "older"
    older.mkdir(exist_ok=True)
    for migration in load_migrations(MIGRATIONS_DIR)[:4]:
        (older / f"{migration.name}.sql").write_text(migration.sql)
    return older


def fill_session(settings: Settings, name: str, *, size: int = 2500) -> None:
    numbers = (
        f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers LIMIT {size})"
    )
    with closing(sqlite3.connect(database_path(settings))) as connection:
        for statement in _FILL:
            connection.execute(statement.format(session=name, before=numbers, numbers="numbers"))
        connection.commit()
