"""A database of every earlier schema is updated with its data, as the table in docs/operations.md says."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest

from shared_context_server.settings import Settings
from shared_context_server.storage import (
    find_schema_status,
    migrate_storage,
    open_copier,
    open_storage,
)
from shared_context_server.storage.codec import Row
from shared_context_server.storage.contract import AuditQuery
from shared_context_server.storage.migrations import load_migrations
from shared_context_server.storage.postgres.engine import migrations as postgres_migrations
from shared_context_server.storage.sqlite.engine import migrations as sqlite_migrations
from shared_context_server.storage.sqlite.engine.connections import database_path, open_connection
from shared_context_server.storage.transfer.records import COUNTER, KINDS, RecordKind
from tests.postgres import DatabaseServer
from tests.storage.builders import ALICE, BOB, CAROL, add_message, list_seqs, make_audit
from tests.storage.filled import fill

MIGRATIONS = {
    "sqlite": load_migrations(sqlite_migrations.MIGRATIONS_DIR),
    "postgresql": load_migrations(postgres_migrations.MIGRATIONS_DIR),
}
EARLIER = [(store, m.number) for store, all_of in MIGRATIONS.items() for m in all_of[:-1]]
# What tells of changes to other processes, and what a start learns of the machine.
_NOT_COMPARED = {"schema_migrations", "changes", "heartbeat", "clock_offsets", "sqlite_stat1"}
# The present schema chains what is added to the audit log, an update does not.
_NOT_COMPARED |= {"audit_chain"}
_COLUMNS_NOT_COMPARED = {("memory", "id"), ("audit_log", "hash")}


class Data(NamedTuple):
    """Rows of a store as it is now, by kind."""

    rows: Mapping[RecordKind, list[Row]]

    def fitting(self, columns: Mapping[str, list[str]]) -> Iterator[tuple[RecordKind, list[str]]]:
        """The kinds that a schema with these tables has, with the columns that it has of them."""
        for kind in self.rows:
            if kind.table in columns:
                yield kind, [name for name in kind.columns if name in columns[kind.table]]

    def cut(self, kind: RecordKind, names: list[str]) -> list[Row]:
        positions = [kind.columns.index(name) for name in names]
        return [tuple(row[position] for position in positions) for row in self.rows[kind]]


class SqliteDatabase:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        settings.data_dir.mkdir(parents=True, mode=0o700)
        database_path(settings).touch(mode=0o600)

    async def migrate(self, up_to: int) -> None:
        with closing(self._open()) as connection:
            sqlite_migrations.apply_migrations(connection, MIGRATIONS["sqlite"][:up_to])

    async def read_columns(self) -> dict[str, list[str]]:
        with closing(self._open()) as connection:
            tables = connection.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'sqlite_sequence'"
            ).fetchall()
            return {
                name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
                for (name,) in tables
            }

    async def insert(self, table: str, names: list[str], rows: list[Row]) -> None:
        places = ", ".join("?" * len(names))
        with closing(self._open()) as connection:
            connection.executemany(
                f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})", rows
            )

    async def read_rows(self, table: str, names: list[str]) -> list[Row]:
        with closing(self._open()) as connection:
            rows = connection.execute(f"SELECT {', '.join(names)} FROM {table}").fetchall()
            return sorted(map(tuple, rows), key=repr)

    def _open(self) -> sqlite3.Connection:
        return open_connection(database_path(self.settings), self.settings, query_only=False)


class PostgresDatabase:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def migrate(self, up_to: int) -> None:
        connection = await self._connect()
        try:
            await postgres_migrations.apply_migrations(connection, MIGRATIONS["postgresql"][:up_to])
        finally:
            await connection.close()

    async def read_columns(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for table, column in await self._fetch(
            "SELECT table_name::text, column_name::text FROM information_schema.columns"
            " WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position"
        ):
            found.setdefault(table, []).append(column)
        return found

    async def insert(self, table: str, names: list[str], rows: list[Row]) -> None:
        places = ", ".join(f"${number}" for number in range(1, len(names) + 1))
        connection = await self._connect()
        try:
            await connection.executemany(
                f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})", rows
            )
            if "id" in names and isinstance(rows[0][names.index("id")], int) and table != "tasks":
                await connection.execute(
                    f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}"
                )
        finally:
            await connection.close()

    async def read_rows(self, table: str, names: list[str]) -> list[Row]:
        rows = await self._fetch(f"SELECT {', '.join(names)} FROM {table}")
        return sorted(map(tuple, rows), key=repr)

    async def _fetch(self, sql: str) -> list[Any]:
        connection = await self._connect()
        try:
            return list(await connection.fetch(sql))
        finally:
            await connection.close()

    async def _connect(self) -> Any:
        return await asyncpg.connect(self.settings.storage_url, statement_cache_size=0)


Database = SqliteDatabase | PostgresDatabase


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Something of everything, as the present schema has it."""

    async def read() -> dict[RecordKind, list[Row]]:
        settings = Settings(data_dir=tmp_path_factory.mktemp("filled") / "data", database_url=None)
        async with open_storage(settings) as store:
            await fill(store)
        async with open_copier(settings, read_only=True) as copier:
            return {
                kind: await copier.read_rows(kind, after=None, up_to=None, limit=1000)
                for kind in KINDS
                if kind is not COUNTER
            }

    return Data(asyncio.run(read()))


@pytest.fixture(params=EARLIER, ids=lambda found: f"{found[0]}-{found[1]}")
def earlier(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Database, Database, int]]:
    """Two databases without tables, and the number of a schema."""
    store, number = request.param
    if store == "sqlite":
        old, new = (
            SqliteDatabase(Settings(data_dir=tmp_path / name / "data", database_url=None))
            for name in ("old", "new")
        )
        yield old, new, number
        return
    server: DatabaseServer = request.getfixturevalue("postgres")
    with (
        server.new_database(is_migrated=False) as one,
        server.new_database(is_migrated=False) as other,
    ):
        yield (
            PostgresDatabase(Settings(data_dir=tmp_path / "old", **one)),
            PostgresDatabase(Settings(data_dir=tmp_path / "new", **other)),
            number,
        )


async def insert_all(database: Database, data: Data, columns: Mapping[str, list[str]]) -> None:
    for kind, names in data.fitting(columns):
        if rows := data.cut(kind, names):
            await database.insert(kind.table, names, rows)


async def test_a_database_of_an_earlier_schema_is_updated_with_its_data(
    earlier: tuple[Database, Database, int], data: Data
) -> None:
    """It then equals one in which the same rows were written under the present schema: also in what
    triggers and migrations derive from them."""
    old, new, number = earlier
    await old.migrate(number)
    columns = await old.read_columns()
    await insert_all(old, data, columns)
    assert find_schema_status(old.settings).current == number
    assert len(migrate_storage(old.settings)) == find_schema_status(old.settings).latest - number
    migrate_storage(new.settings)
    await insert_all(new, data, columns)

    now = await new.read_columns()
    assert await old.read_columns() == now
    for table in sorted(now.keys() - _NOT_COMPARED):
        names = [name for name in now[table] if (table, name) not in _COLUMNS_NOT_COMPARED]
        assert await old.read_rows(table, names) == await new.read_rows(table, names), table
    await require_usable(old.settings)
    if number < (15 if isinstance(old, SqliteDatabase) else 10):  # since then there is a chain
        await require_chain_behind(old.settings)


@pytest.mark.parametrize("store", MIGRATIONS)
def test_the_page_on_operations_names_every_schema(store: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    column = 1 + list(MIGRATIONS).index(store)
    rows = [line.split("|") for line in page.splitlines() if re.match(r"\| (\d{4}_\w+|) ", line)]
    named = [row[column].strip() for row in rows]
    assert [name for name in named if name] == [found.name for found in MIGRATIONS[store]]


async def require_usable(settings: Settings) -> None:
    """Its messages are read and counted for those who may see them, and its log goes on."""
    async with open_storage(settings) as store:
        assert await list_seqs(store, ALICE, "open") == [1, 2]
        assert await list_seqs(store, BOB, "open") == [1, 2, 3]
        assert await list_seqs(store, CAROL, "open") == [1, 2, 3, 4]
        assert await store.sessions.get_cursor("open", "bob") == 2
        assert (await add_message(store, "open")).seq == 6
        (first,) = await store.messages.list_by_ids(ALICE, [1])
        assert first.content == "hello\n☃ \"'\\"


async def require_chain_behind(settings: Settings) -> None:
    """Entries from before the update are not in the chain of the audit log; the next one begins it."""
    async with open_storage(settings) as store:
        before = await store.audit.list_newest(AuditQuery(limit=99))
        await store.audit.add(make_audit("updated"))
        entries, chain = await store.audit.list_with_chain(AuditQuery(limit=99))
        assert chain is not None
        assert [entry.hash for entry in entries] == [chain.head_hash, *("" for _ in before)]
        assert chain.start_id == chain.anchor_id == before[0].id == chain.head_id - 1
