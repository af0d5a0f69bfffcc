"""Read and write rows for copies of an SQLite database (the Copier protocol)."""

# ruff: noqa: S608 - statements are composed of names that records.py fixes

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from shared_context_server.storage.codec import Row
from shared_context_server.storage.sqlite.engine.failures import wrap_error
from shared_context_server.storage.transfer.copying import RecordRefused
from shared_context_server.storage.transfer.records import (
    AGENT,
    API_KEY,
    COUNTER,
    CREDENTIAL,
    NUMBERED_TABLES,
    Key,
    RecordKind,
)

T = TypeVar("T")

BATCH_CHARS = 4_000_000  # text in one answer of read_rows: bounds memory where rows are large

_READ_COUNTERS = "SELECT name, seq FROM sqlite_sequence"
_ADD_COUNTER = """
    INSERT INTO sqlite_sequence (name, seq)
    SELECT :name, 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = :name)"""
_RAISE_COUNTER = "UPDATE sqlite_sequence SET seq = max(seq, :last_id) WHERE name = :name"
_NEXT_AUTH_GENERATION = "UPDATE auth_generation SET generation = generation + 1"


class _Reader:
    """A connection and the one thread that uses it."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-copier")
        self._connection: sqlite3.Connection | None = None

    async def start(self, statement: str | None = None) -> None:
        def connect() -> None:
            self._connection = self._connect()
            if statement is not None:
                self._connection.execute(statement)

        await self._call(connect)

    def close(self) -> None:
        """Close after any work that a cancelled caller has left running."""
        if self._connection is not None:
            self._thread.submit(self._connection.close)
        self._thread.shutdown()

    async def _call(self, function: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function)
        except sqlite3.Error as exc:
            raise wrap_error(exc) from exc

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection
        assert connection is not None, "start() comes first"
        return await self._call(lambda: function(connection))

    async def read_rows(
        self, kind: RecordKind, *, after: Key | None = None, up_to: Key | None = None, limit: int
    ) -> list[Row]:
        return await self.run(lambda connection: _read_rows(connection, kind, after, up_to, limit))

    async def count_rows(self, kind: RecordKind) -> int:
        if kind is COUNTER:
            return len(NUMBERED_TABLES)
        statement = f"SELECT count(*) FROM {kind.table} WHERE {kind.condition}"
        (count,) = await self.run(lambda connection: connection.execute(statement).fetchone())
        return int(count)


class SqliteCopier(_Reader):
    """A Copier; made by open_sqlite_copier."""

    can_store_nul = True

    @asynccontextmanager
    async def open_snapshot(self) -> AsyncIterator[_Reader]:
        reader = _Reader(self._connect)
        try:
            await reader.start("BEGIN")
            # The first read fixes the transaction's snapshot.
            await reader.count_rows(API_KEY)
            yield reader
        finally:
            reader.close()

    @asynccontextmanager
    async def open_transaction(self) -> AsyncIterator[None]:
        await self.run(lambda connection: connection.execute("BEGIN IMMEDIATE"))
        try:
            yield
            await self.run(lambda connection: connection.execute("COMMIT"))
        finally:
            await self.run(_roll_back)

    async def get_position(self) -> str:
        # It grows with each commit of another connection.
        (version,) = await self.run(
            lambda connection: connection.execute("PRAGMA data_version").fetchone()
        )
        return str(version)

    async def write_rows(
        self, kind: RecordKind, added: Sequence[Row], changed: Sequence[Row]
    ) -> None:
        await self.run(lambda connection: _write_rows(connection, kind, added, changed))


def _read_rows(
    connection: sqlite3.Connection,
    kind: RecordKind,
    after: Key | None,
    up_to: Key | None,
    limit: int,
) -> list[Row]:
    if kind is COUNTER:
        return _read_counters(connection, after, up_to)[:limit]
    key = f"({', '.join(kind.key)})"
    marks = f"({', '.join('?' * len(kind.key))})"
    bounds = [kind.condition]
    if after is not None:
        bounds.append(f"{key} > {marks}")
    if up_to is not None:
        bounds.append(f"{key} <= {marks}")
    cursor = connection.execute(
        f"SELECT {', '.join(kind.columns)} FROM {kind.table} WHERE {' AND '.join(bounds)} "
        f"ORDER BY {', '.join(kind.key)} LIMIT ?",
        (*(after or ()), *(up_to or ()), limit),
    )
    rows: list[Row] = []
    chars = 0
    for row in cursor:
        rows.append((*row[:-1], bool(row[-1])) if kind is AGENT else row)
        chars += sum(len(value) for value in row if isinstance(value, str))
        if chars >= BATCH_CHARS:
            break
    cursor.close()
    return rows


def _read_counters(
    connection: sqlite3.Connection, after: Key | None, up_to: Key | None
) -> list[Row]:
    last_ids = dict(connection.execute(_READ_COUNTERS).fetchall())
    rows = [(table, last_ids.get(table, 0)) for table in NUMBERED_TABLES]
    return [
        row
        for row in rows
        if (after is None or row[:1] > after) and (up_to is None or row[:1] <= up_to)
    ]


def _write_rows(
    connection: sqlite3.Connection, kind: RecordKind, added: Sequence[Row], changed: Sequence[Row]
) -> None:
    try:
        with _transaction(connection):
            if kind is COUNTER:
                _raise_counters(connection, changed)
            else:
                connection.executemany(_insert(kind), added)
                connection.executemany(_update(kind), (row + kind.key_of(row) for row in changed))
            if kind in (API_KEY, CREDENTIAL):
                connection.execute(_NEXT_AUTH_GENERATION)
    except sqlite3.IntegrityError as exc:
        rows = [*added, *changed]
        raise RecordRefused(
            f"The destination refuses one of the records from {kind.describe(rows[0])} to "
            f"{kind.describe(rows[-1])}: {exc}."
        ) from exc


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction, or inside of one a savepoint: the block is written whole or not at all."""
    if connection.in_transaction:
        begin, commit, undo = "SAVEPOINT part", "RELEASE part", "ROLLBACK TO part"
    else:
        begin, commit, undo = "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"
    connection.execute(begin)
    try:
        yield
        connection.execute(commit)
    except BaseException:
        if connection.in_transaction:  # a full disk has ended it already
            connection.execute(undo)
        raise


def _roll_back(connection: sqlite3.Connection) -> None:
    """End a transaction that was not committed."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _insert(kind: RecordKind) -> str:
    marks = ", ".join("?" * len(kind.columns))
    return f"INSERT INTO {kind.table} ({', '.join(kind.columns)}) VALUES ({marks})"


def _update(kind: RecordKind) -> str:
    settings = ", ".join(f"{column} = ?" for column in kind.columns)
    where = " AND ".join(f"{column} = ?" for column in kind.key)
    return f"UPDATE {kind.table} SET {settings} WHERE {where}"


def _raise_counters(connection: sqlite3.Connection, counters: Sequence[Row]) -> None:
    for name, last_id in counters:
        connection.execute(_ADD_COUNTER, {"name": name})
        connection.execute(_RAISE_COUNTER, {"name": name, "last_id": last_id})
