"""Apply the numbered SQL files in this directory on SQLite.

They must not contain VACUUM or a PRAGMA that changes a setting.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from shared_context_server.errors import ConfigurationError
from shared_context_server.storage.codec import encode_time
from shared_context_server.storage.migrations import (
    Migration,
    SchemaStatus,
    find_missing,
    is_ours,
)

MIGRATIONS_DIR = Path(__file__).parent

_CREATE_TABLE = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        number INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        checksum TEXT NOT NULL,
        applied_at INTEGER NOT NULL
    )"""
# One statement, so that it sees one snapshot: another process may be migrating.
_FIND_TABLES = """
    SELECT
        (SELECT group_concat(name, ' ') FROM pragma_table_info('schema_migrations')),
        EXISTS (
            SELECT 1 FROM sqlite_schema
            WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND tbl_name != 'schema_migrations'
        ),
        (SELECT file FROM pragma_database_list WHERE name = 'main')"""
_HAS_STATISTICS = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_stat1')"
_LIST_APPLIED = "SELECT number, name, checksum FROM schema_migrations ORDER BY number"
_RECORD = """
    INSERT INTO schema_migrations (number, name, checksum, applied_at)
    VALUES (:number, :name, :checksum, :applied_at)"""


def apply_migrations(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> list[str]:
    """Apply the missing migrations in one transaction; return their names.

    Raises ConfigurationError, having changed nothing, if the tables are not ours, if a migration
    fails, if an applied one has changed, or if the schema is newer than this program.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        require_ours(connection)
        connection.execute(_CREATE_TABLE)
        missing = _find_missing(connection, migrations)
        if missing:
            _forget_statistics(connection)
        for migration in missing:
            _apply(connection, migration)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return [migration.name for migration in missing]


def read_status(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> SchemaStatus:
    """Return this database's schema version. Raises ConfigurationError as apply_migrations does."""
    current = 0
    if require_ours(connection):
        current = len(migrations) - len(_find_missing(connection, migrations))
    return SchemaStatus(current=current, latest=len(migrations))


def require_ours(connection: sqlite3.Connection) -> bool:
    """Return whether the database has our tables; False if it is empty. Raises ConfigurationError
    if it only has tables of another program."""
    columns, has_others, path = connection.execute(_FIND_TABLES).fetchone()
    return is_ours(
        (columns or "").split(), has_others=bool(has_others), where=f"The database {path}"
    )


def _find_missing(
    connection: sqlite3.Connection, migrations: Sequence[Migration]
) -> list[Migration]:
    return find_missing(connection.execute(_LIST_APPLIED).fetchall(), migrations)


def _forget_statistics(connection: sqlite3.Connection) -> None:
    """Delete the planner's statistics before migrating. They are made again when the database is
    opened for writing.

    Statistics from a time when a session was small would make a join by session and seq read the
    whole session for each of its messages.
    """
    if connection.execute(_HAS_STATISTICS).fetchone()[0]:
        connection.execute("DELETE FROM sqlite_stat1")
        connection.execute("ANALYZE sqlite_schema")  # reads them again, and nothing else


def _apply(connection: sqlite3.Connection, migration: Migration) -> None:
    try:
        for statement in split_statements(migration.sql):
            connection.execute(statement)
        connection.execute(
            _RECORD,
            {
                "number": migration.number,
                "name": migration.name,
                "checksum": migration.checksum,
                "applied_at": encode_time(datetime.now(UTC)),
            },
        )
    except (sqlite3.Error, sqlite3.Warning) as exc:
        raise ConfigurationError(f"Migration {migration.name} failed: {exc}.") from exc


def split_statements(sql: str) -> Iterator[str]:
    """Yield the statements, each ending at a line end. SQLite itself decides where, so triggers and
    quoted semicolons stay whole. The rest is yielded too, and fails unless it is a comment."""
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
