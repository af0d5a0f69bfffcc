"""Apply the numbered SQL files in this directory on PostgreSQL.

They must not contain statements that cannot run in a transaction, such as CREATE INDEX
CONCURRENTLY.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from shared_context_server.errors import ConfigurationError
from shared_context_server.storage.codec import encode_time
from shared_context_server.storage.migrations import (
    Migration,
    SchemaStatus,
    find_missing,
    is_ours,
)
from shared_context_server.storage.postgres.engine.pool import Connection
from shared_context_server.storage.postgres.engine.statements import Statement

MIGRATIONS_DIR = Path(__file__).parent

# Held to the end of the transaction: replicas that start together migrate one after the other, the
# first does the work. The number is arbitrary.
_TAKE_TURNS = "SELECT pg_advisory_xact_lock(7243000000000000001)"
_CREATE_TABLE = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        number INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        checksum TEXT NOT NULL,
        applied_at BIGINT NOT NULL
    )"""
# One statement, so that it sees one snapshot: another replica may be migrating. Tables of an
# extension (PostGIS has one) belong to no program.
_FIND_TABLES = """
    SELECT
        ARRAY(
            SELECT attname::text FROM pg_attribute
            WHERE attrelid = to_regclass('schema_migrations') AND attnum > 0 AND NOT attisdropped
        ),
        EXISTS (
            SELECT 1 FROM pg_class
            WHERE relnamespace = to_regnamespace(quote_ident(current_schema()))
                AND relkind IN ('r', 'p', 'v', 'm', 'f')
                AND relname != 'schema_migrations'
                AND NOT EXISTS (
                    SELECT 1 FROM pg_depend
                    WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e'
                )
        ),
        current_schema(),
        current_database()"""
_LIST_APPLIED = "SELECT number, name, checksum FROM schema_migrations ORDER BY number"
_RECORD = Statement("""
    INSERT INTO schema_migrations (number, name, checksum, applied_at)
    VALUES (:number, :name, :checksum, :applied_at)""")


async def apply_migrations(connection: Connection, migrations: Sequence[Migration]) -> list[str]:
    """Apply the missing migrations in one transaction; return their names.

    Raises ConfigurationError, having changed nothing, if the tables are not ours, if a migration
    fails, if an applied one has changed, or if the schema is newer than this program.
    """
    if await _list_missing(connection, migrations) == []:
        return []  # the usual start writes nothing and needs no right to write
    async with connection.transaction():
        # No time-out, because another replica's migration may take long.
        await connection.execute(_TAKE_TURNS, timeout=None)
        await connection.execute(_CREATE_TABLE)
        missing = await _list_missing(connection, migrations)
        for migration in missing:
            await _apply(connection, migration)
    return [migration.name for migration in missing]


async def read_status(connection: Connection, migrations: Sequence[Migration]) -> SchemaStatus:
    """Return this database's schema version. Raises ConfigurationError as apply_migrations does."""
    missing = await _list_missing(connection, migrations)
    return SchemaStatus(current=len(migrations) - len(missing), latest=len(migrations))


async def _list_missing(connection: Connection, migrations: Sequence[Migration]) -> list[Migration]:
    ((columns, has_others, schema, database),) = await connection.fetch(_FIND_TABLES)
    where = f"DATABASE_URL: the schema {schema} of the database {database}"
    if not is_ours(columns, has_others=has_others, where=where):
        return list(migrations)
    applied = await connection.fetch(_LIST_APPLIED)
    return find_missing([(row[0], row[1], row[2]) for row in applied], migrations)


async def _apply(connection: Connection, migration: Migration) -> None:
    try:
        await connection.execute(migration.sql, timeout=None)
    except asyncpg.PostgresError as exc:
        raise ConfigurationError(f"Migration {migration.name} failed: {exc}.") from exc
    await connection.execute(
        *_RECORD(
            number=migration.number,
            name=migration.name,
            checksum=migration.checksum,
            applied_at=encode_time(datetime.now(UTC)),
        )
    )
