"""The store as a whole, on SQLite: health, closing, purging, statistics, clock offsets."""

from __future__ import annotations

import sqlite3
import time
from datetime import datetime
from functools import partial

from shared_context_server.storage.codec import encode_time
from shared_context_server.storage.contract import StoreStats
from shared_context_server.storage.sqlite.engine.work import Subject, reads, writes
from shared_context_server.storage.sqlite.removal import list_deleted, purge_step, remove_session
from shared_context_server.storage.sqlite.vacuum import read_space, release_in_background

_READ_A_ROW = "SELECT 1 FROM auth_generation"
# A change, because SQLite writes no page that stays as it is.
_CHANGE_A_ROW = "UPDATE heartbeat SET written_at = max(written_at + 1, ?)"
_COUNT_SESSIONS = "SELECT count(*) FROM sessions WHERE status = 'active'"
_COUNT_AGENTS = "SELECT count(*) FROM agents WHERE last_seen >= :active_since"
_FIND_OFFSET = "SELECT offset_us FROM clock_offsets WHERE boot_id = ?"
_NOTE_OFFSET = """
    INSERT INTO clock_offsets (boot_id, offset_us) VALUES (?, ?)
    ON CONFLICT (boot_id) DO UPDATE SET offset_us = max(offset_us, excluded.offset_us)"""


class Maintenance(Subject):
    """The store as a whole. See contract/maintenance.py."""

    async def ping(self) -> None:
        await self.engine.readers.run(_read_something)
        await self.engine.writer.run(_write_something)

    def begin_closing(self) -> None:
        """Do nothing: a file does not stop answering, and waiting for another process's lock is
        limited already."""

    async def aclose(self) -> None:
        await self.engine.aclose()

    async def purge(
        self, *, expired_before: datetime, idempotency_before: datetime, audit_before: datetime
    ) -> int:
        total = 0
        for session_id in await self.engine.readers.run(list_deleted):
            total += await remove_session(self.engine, session_id)
        step = partial(
            purge_step,
            expired_before=expired_before,
            idempotency_before=idempotency_before,
            audit_before=audit_before,
        )
        while removed := await self.engine.writer.run(step):
            total += removed
        return total

    async def release_free_space(self) -> int:
        return await release_in_background(self.engine)

    async def get_stats(self, *, active_since: datetime) -> StoreStats:
        active_sessions, active_agents = await self._count_active(active_since)
        space = await self.engine.readers.run(read_space)
        writer = self.engine.writer.stats()
        return StoreStats(
            active_sessions=active_sessions,
            active_agents=active_agents,
            free_bytes=space.free_bytes,
            extra={
                "scs_writer_queue_depth": writer.queue_depth,
                "scs_writer_last_batch_size": writer.last_batch_size,
                "scs_writer_batches": writer.batches,
                "scs_writer_operations": writer.operations,
            },
        )

    @reads
    def _count_active(
        self, connection: sqlite3.Connection, active_since: datetime
    ) -> tuple[int, int]:
        """Return the numbers of active sessions and of agents seen since then."""
        (sessions,) = connection.execute(_COUNT_SESSIONS).fetchone()
        bounds = {"active_since": encode_time(active_since)}
        (agents,) = connection.execute(_COUNT_AGENTS, bounds).fetchone()
        return sessions, agents

    @reads
    def measure_reusable(self, connection: sqlite3.Connection) -> int:
        (pages,) = connection.execute("PRAGMA freelist_count").fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        return int(pages) * int(page_bytes)

    @reads
    def find_clock_offset(self, connection: sqlite3.Connection, boot_id: str) -> int | None:
        row = connection.execute(_FIND_OFFSET, (boot_id,)).fetchone()
        return None if row is None else int(row[0])

    @writes
    def note_clock_offset(
        self, connection: sqlite3.Connection, boot_id: str, offset_us: int
    ) -> None:
        connection.execute(_NOTE_OFFSET, (boot_id, offset_us))


def _read_something(connection: sqlite3.Connection) -> None:
    connection.execute(_READ_A_ROW).fetchone()


def _write_something(connection: sqlite3.Connection) -> None:
    connection.execute(_CHANGE_A_ROW, (time.time_ns(),))
