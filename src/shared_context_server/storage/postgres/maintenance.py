"""The store as a whole, on PostgreSQL: health, closing, purging, statistics, clock offsets."""

from __future__ import annotations

import asyncio
import contextlib
import math
from datetime import datetime
from functools import partial

from shared_context_server.errors import Unavailable
from shared_context_server.storage.codec import encode_time
from shared_context_server.storage.contract import StoreStats
from shared_context_server.storage.postgres.engine.pool import Connection, Mode
from shared_context_server.storage.postgres.engine.statements import Statement
from shared_context_server.storage.postgres.engine.work import Subject, reads, writes
from shared_context_server.storage.postgres.removal import list_deleted, purge_step, remove_session

STATS_WAIT_S = 1.0  # well below the time-out of Prometheus

_MAY_WRITE = (
    "SELECT has_table_privilege('messages', 'SELECT') AND has_table_privilege('messages', 'INSERT')"
)
_TAKES_WRITES = Statement(f"{_MAY_WRITE} AND current_setting('transaction_read_only') = 'off'")
_COUNT = Statement("""
    SELECT (SELECT count(*) FROM sessions WHERE status = 'active'),
           (SELECT count(*) FROM agents WHERE last_seen >= :active_since)""")
_FIND_OFFSET = Statement("SELECT offset_us FROM clock_offsets WHERE boot_id = :boot_id")
_DATABASE_SIZE = "SELECT pg_database_size(current_database())"
_LIST_TABLES = """
    SELECT oid::regclass::text FROM pg_class
    WHERE relkind = 'r' AND relnamespace = to_regnamespace(quote_ident(current_schema()))
    ORDER BY 1"""
_NOTE_OFFSET = Statement("""
    INSERT INTO clock_offsets (boot_id, offset_us) VALUES (:boot_id, :offset_us)
    ON CONFLICT (boot_id) DO UPDATE
        SET offset_us = greatest(clock_offsets.offset_us, excluded.offset_us)""")


class Maintenance(Subject):
    """The store as a whole. See contract/maintenance.py."""

    async def ping(self) -> None:
        if not await self._takes_writes():
            raise Unavailable("The database accepts no writes.")

    @writes
    async def _takes_writes(self, connection: Connection) -> bool:
        return bool(await connection.fetchval(*_TAKES_WRITES()))

    def begin_closing(self) -> None:
        self.engine.pool.begin_closing()

    async def aclose(self) -> None:
        await self.engine.aclose()

    async def purge(
        self, *, expired_before: datetime, idempotency_before: datetime, audit_before: datetime
    ) -> int:
        pool = self.engine.pool
        total = 0
        for session_id in await pool.run(Mode.READ, list_deleted):
            total += await remove_session(pool, session_id)
        step = partial(
            purge_step,
            expired_before=expired_before,
            idempotency_before=idempotency_before,
            audit_before=audit_before,
        )
        while removed := await pool.run(Mode.WRITE, step):
            total += removed
        return total

    async def release_free_space(self) -> int:
        """Do nothing: autovacuum does it."""
        return 0

    async def get_stats(self, *, active_since: datetime) -> StoreStats:
        active_sessions = active_agents = math.nan
        is_up = False
        # The pool's numbers matter most when the database does not answer.
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(STATS_WAIT_S):
                active_sessions, active_agents = await self._count_active(active_since)
            is_up = True
        return StoreStats(
            active_sessions=active_sessions,
            active_agents=active_agents,
            extra={"scs_postgres_up": float(is_up), **self.engine.pool.stats()},
        )

    @reads
    async def _count_active(
        self, connection: Connection, active_since: datetime
    ) -> tuple[int, int]:
        """Return the numbers of active sessions and of agents seen since then."""
        row = await connection.fetchrow(*_COUNT(active_since=encode_time(active_since)))
        assert row is not None
        return row[0], row[1]

    async def measure_reusable(self) -> int:
        return 0

    @reads
    async def find_clock_offset(self, connection: Connection, boot_id: str) -> int | None:
        found: int | None = await connection.fetchval(*_FIND_OFFSET(boot_id=boot_id))
        return found

    @writes
    async def note_clock_offset(self, connection: Connection, boot_id: str, offset_us: int) -> None:
        await connection.execute(*_NOTE_OFFSET(boot_id=boot_id, offset_us=offset_us))


async def may_write(connection: Connection) -> bool:
    """Whether this role has the right to write."""
    return bool(await connection.fetchval(_MAY_WRITE))


async def vacuum_tables(connection: Connection) -> tuple[int, int]:
    """Run VACUUM on all tables of the schema; return the database's size in bytes before and after."""
    before = await connection.fetchval(_DATABASE_SIZE)
    for (table,) in await connection.fetch(_LIST_TABLES):
        await connection.execute(f"VACUUM (ANALYZE) {table}", timeout=None)
    return before, await connection.fetchval(_DATABASE_SIZE)
