"""The numbered SQL files beside this one, applied in order, each once.

A file is a series of statements that may run in a transaction (no VACUUM, no PRAGMA that sets).
Once released it never changes: its checksum is kept in every database it was applied to.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from shared_context_server.errors import ConfigurationError
from shared_context_server.storage.sqlite.rows import encode_time

MIGRATIONS_DIR = Path(__file__).parent

_FILE_NAME = re.compile(r"(\d{4})_\w+\.sql")

_CREATE_TABLE = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        number INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        checksum TEXT NOT NULL,
        applied_at INTEGER NOT NULL
    )"""
_HAS_TABLE = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'schema_migrations'"
_LIST_APPLIED = "SELECT number, name, checksum FROM schema_migrations ORDER BY number"
_RECORD = """
    INSERT INTO schema_migrations (number, name, checksum, applied_at)
    VALUES (:number, :name, :checksum, :applied_at)"""


@dataclass(frozen=True, slots=True)
class Migration:
    """`checksum` is the SHA-256 of the text, in hex."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """Numbers of the newest migration applied (0: none) and of the newest one there is."""

    current: int
    latest: int


def load_migrations(directory: Path = MIGRATIONS_DIR) -> list[Migration]:
    """The migrations of a directory by number. Raises ConfigurationError for a gap."""
    migrations: list[Migration] = []
    for path in sorted(directory.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None or int(match[1]) != len(migrations) + 1:
            raise ConfigurationError(f"Migration {path.name} is not number {len(migrations) + 1}.")
        # Universal newlines: a checkout with CRLF has the same checksum.
        sql = path.read_text(encoding="utf-8")
        migrations.append(Migration(number=int(match[1]), name=path.stem, sql=sql))
    return migrations


def apply_migrations(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> list[str]:
    """Apply what is missing, all in one transaction; return the names of what was applied.

    Raises ConfigurationError, having changed nothing, if a migration fails, if an applied one has
    been changed, or if the schema is newer than this program.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_CREATE_TABLE)
        missing = list(_find_missing(connection, migrations))
        for migration in missing:
            _apply(connection, migration)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return [migration.name for migration in missing]


def read_status(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> SchemaStatus:
    """Where this database stands. Raises ConfigurationError as apply_migrations does."""
    current = 0
    if connection.execute(_HAS_TABLE).fetchone():
        current = len(migrations) - len(list(_find_missing(connection, migrations)))
    return SchemaStatus(current=current, latest=len(migrations))


def _find_missing(
    connection: sqlite3.Connection, migrations: Sequence[Migration]
) -> Iterator[Migration]:
    applied = connection.execute(_LIST_APPLIED).fetchall()
    if len(applied) > len(migrations):
        raise ConfigurationError(
            f"The database has schema {applied[-1][0]} ({applied[-1][1]}), this program knows "
            f"{len(migrations)}: start a newer version of the program, or restore an older backup."
        )
    for migration, (_, name, checksum) in zip(migrations, applied, strict=False):
        if (migration.name, migration.checksum) != (name, checksum):
            raise ConfigurationError(
                f"Migration {migration.name} is not the one this database was made with "
                f"({name}, sha256 {checksum[:12]}…): applied migrations must not change."
            )
    yield from migrations[len(applied) :]


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
    """Statements, each ending at the end of a line; SQLite itself says where, so that triggers and
    quoted semicolons stay whole. What is left over is yielded too, and fails if it is no comment.
    """
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
