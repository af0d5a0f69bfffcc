"""Read and write rows for copies of a PostgreSQL database (the Copier protocol)."""

# ruff: noqa: S608 - statements are composed of names that records.py fixes

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg

from shared_context_server.settings import Settings
from shared_context_server.storage.codec import Row
from shared_context_server.storage.postgres.engine.commit_watermark import read_end
from shared_context_server.storage.postgres.engine.failures import DRIVER_ERRORS, wrap_error
from shared_context_server.storage.postgres.engine.hosts import Connector
from shared_context_server.storage.transfer.copying import RecordRefused
from shared_context_server.storage.transfer.records import (
    API_KEY,
    AUDIT,
    COUNTER,
    CREDENTIAL,
    KINDS,
    NUMBERED_TABLES,
    Key,
    RecordKind,
)

BATCH_CHARS = 4_000_000  # text in one answer of read_rows: bounds memory where rows are large
_PREFETCHED = 100  # rows fetched ahead

_LAST_ID = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {table}_id_seq"
# The chain of the audit log gives out ids too, so those of the sequence are left unused.
_LAST_AUDIT_ID = """
    SELECT greatest(head_id, (SELECT max(id) FROM audit_log)) FROM audit_chain"""
_RAISE_COUNTER = """
    SELECT setval('{table}_id_seq', $1)
    FROM {table}_id_seq WHERE $1 > CASE WHEN is_called THEN last_value ELSE 0 END"""
_NEXT_AUTH_GENERATION = "UPDATE auth_generation SET generation = generation + 1"
# A write that changes no sequence and adds nothing to `changes` still has a transaction id.
_UNNUMBERED = """
    SELECT (SELECT generation FROM auth_generation)::text,
           (SELECT count(*) || '/' || max(xmin::text::bigint) FROM cursors),
           (SELECT count(*) || '/' || max(xmin::text::bigint) FROM agents),
           (SELECT count(*) || '/' || max(xmin::text::bigint) FROM credentials),
           (SELECT count(*) || '/' || max(xmin::text::bigint) FROM api_keys),
           (SELECT count(*) || '/' || max(id) FROM idempotency),
           (SELECT count(*) || '/' || max(id) FROM audit_log)"""
# Others can read, and their writes wait.
_LOCK = "LOCK TABLE {} IN EXCLUSIVE MODE".format(
    ", ".join(kind.table for kind in KINDS if kind is not COUNTER)
)
_REFUSALS = (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError)


class _Reader:
    """A connection that is in a transaction while it reads."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection

    async def read_rows(
        self, kind: RecordKind, *, after: Key | None = None, up_to: Key | None = None, limit: int
    ) -> list[Row]:
        if kind is COUNTER:
            return (await self._read_counters(after, up_to))[:limit]
        bounds = [kind.condition]
        arguments: list[Any] = []
        for operator, bound in ((">", after), ("<=", up_to)):
            if bound is not None:
                marks = ", ".join(f"${len(arguments) + n}" for n in range(1, len(bound) + 1))
                bounds.append(f"({', '.join(kind.key)}) {operator} ({marks})")
                arguments += bound
        statement = (
            f"SELECT {', '.join(kind.columns)} FROM {kind.table} WHERE {' AND '.join(bounds)} "
            f"ORDER BY {', '.join(kind.key)} LIMIT {limit:d}"
        )
        rows: list[Row] = []
        chars = 0
        with _wrap_errors():
            async with self._connection.transaction():
                found = self._connection.cursor(statement, *arguments, prefetch=_PREFETCHED)
                async for row in found:
                    rows.append(tuple(row))
                    chars += sum(len(value) for value in row if isinstance(value, str))
                    if chars >= BATCH_CHARS:
                        break
        return rows

    async def count_rows(self, kind: RecordKind) -> int:
        if kind is COUNTER:
            return len(NUMBERED_TABLES)
        with _wrap_errors():
            count: int = await self._connection.fetchval(
                f"SELECT count(*) FROM {kind.table} WHERE {kind.condition}"
            )
        return count

    async def _read_counters(self, after: Key | None, up_to: Key | None) -> list[Row]:
        return [
            row
            for row in await self._list_counters()
            if (after is None or row[:1] > after) and (up_to is None or row[:1] <= up_to)
        ]

    async def _list_counters(self) -> list[Row]:
        with _wrap_errors():
            last_ids = {
                table: await self._connection.fetchval(_LAST_ID.format(table=table))
                for table in NUMBERED_TABLES
            }
            chained_id = await self._connection.fetchval(_LAST_AUDIT_ID)
            if chained_id is not None:
                last_ids[AUDIT.table] = chained_id
            return list(last_ids.items())


class _Snapshot(_Reader):
    """A snapshot. Sequences are not part of it, so their values are read when it begins."""

    async def start(self) -> None:
        with _wrap_errors():
            await self._connection.transaction(isolation="repeatable_read", readonly=True).start()
            # The first statement, which is this one, fixes the transaction's snapshot.
            self._counters = await super()._list_counters()

    async def _list_counters(self) -> list[Row]:
        return self._counters


class PostgresCopier(_Reader):
    """A Copier; made by open_copier_on."""

    can_store_nul = False

    def __init__(self, connection: asyncpg.Connection[Any], settings: Settings) -> None:
        super().__init__(connection)
        self._settings = settings

    @asynccontextmanager
    async def open_snapshot(self) -> AsyncIterator[_Reader]:
        with _wrap_errors():
            connection = await _connect(self._settings)
        try:
            snapshot = _Snapshot(connection)
            await snapshot.start()
            yield snapshot
        finally:
            connection.terminate()

    @asynccontextmanager
    async def open_transaction(self) -> AsyncIterator[None]:
        transaction = self._connection.transaction()
        with _wrap_errors():
            await transaction.start()
        try:
            with _wrap_errors():
                await self._connection.execute(_LOCK)
            yield
        except BaseException:
            with contextlib.suppress(*DRIVER_ERRORS):  # the connection may be what failed
                await transaction.rollback()
            raise
        with _wrap_errors():
            await transaction.commit()

    async def get_position(self) -> str:
        with _wrap_errors():
            ends = [
                await read_end(self._connection, "messages"),
                await read_end(self._connection, "changes"),
            ]
            unnumbered = await self._connection.fetchrow(_UNNUMBERED)
        assert unnumbered is not None
        return json.dumps([*ends, *unnumbered])

    async def write_rows(
        self, kind: RecordKind, added: Sequence[Row], changed: Sequence[Row]
    ) -> None:
        try:
            with _wrap_errors():
                async with self._connection.transaction():
                    await self._write_rows(kind, added, changed)
        except _REFUSALS as exc:
            rows = [*added, *changed]
            raise RecordRefused(
                f"The destination refuses one of the records from {kind.describe(rows[0])} to "
                f"{kind.describe(rows[-1])}: {exc}."
            ) from exc

    async def _write_rows(
        self, kind: RecordKind, added: Sequence[Row], changed: Sequence[Row]
    ) -> None:
        if kind is COUNTER:
            for table, last_id in changed:
                await self._raise_counter(table, last_id)
            return
        await self._connection.executemany(_insert(kind), added)
        await self._connection.executemany(
            _update(kind), [row + kind.key_of(row) for row in changed]
        )
        if added and kind.table in NUMBERED_TABLES:
            await self._raise_counter(kind.table, max(row[0] for row in added))
        if kind in (API_KEY, CREDENTIAL):
            await self._connection.execute(_NEXT_AUTH_GENERATION)

    async def _raise_counter(self, table: str, last_id: int) -> None:
        if last_id > 0:
            await self._connection.execute(_RAISE_COUNTER.format(table=table), last_id)


@asynccontextmanager
async def open_copier_on(settings: Settings) -> AsyncIterator[PostgresCopier]:
    """Open a copier on its own connection to a migrated database. Raises what asyncpg raises."""
    connection = await _connect(settings)
    try:
        yield PostgresCopier(connection, settings)
    finally:
        connection.terminate()


async def _connect(settings: Settings) -> asyncpg.Connection[Any]:
    # A batch of a copy may take longer than the statements of calls.
    # POSTGRES_LISTEN_URL gives a session of its own, also where a pooler is used.
    url = settings.postgres_listen_url or settings.storage_url
    connection: asyncpg.Connection[Any] = await Connector(url, settings).connect(
        command_timeout=None
    )
    return connection


@contextmanager
def _wrap_errors() -> Iterator[None]:
    try:
        yield
    except _REFUSALS:
        raise
    except DRIVER_ERRORS as exc:
        raise wrap_error(exc) from exc


def _insert(kind: RecordKind) -> str:
    marks = ", ".join(f"${number}" for number in range(1, len(kind.columns) + 1))
    return f"INSERT INTO {kind.table} ({', '.join(kind.columns)}) VALUES ({marks})"


def _update(kind: RecordKind) -> str:
    settings = ", ".join(f"{name} = ${number}" for number, name in enumerate(kind.columns, 1))
    where = " AND ".join(
        f"{name} = ${number}" for number, name in enumerate(kind.key, len(kind.columns) + 1)
    )
    return f"UPDATE {kind.table} SET {settings} WHERE {where}"
