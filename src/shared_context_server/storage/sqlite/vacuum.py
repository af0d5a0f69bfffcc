"""Give the free pages of the file back to the file system, while others use it.

SQLite keeps the pages of deleted rows for later rows, so a file never shrinks by itself. VACUUM would
write the whole file anew and hold the write lock meanwhile. With auto_vacuum = INCREMENTAL, free
pages can be given back a few at a time: the last page of the file is moved to a free place, and the
file is cut off behind it. A file that is made without that setting gets it from one VACUUM, which
`scs vacuum` does while no other process uses the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings
from shared_context_server.storage.backends import Vacuumed
from shared_context_server.storage.sqlite.engine.connections import database_path, open_connection
from shared_context_server.storage.sqlite.engine.work import Engine

_BYTES_PER_MIB = 1024 * 1024
# In the background: no work for what the next messages fill again.
WORTHWHILE_BYTES = 16 * _BYTES_PER_MIB
_WORTHWHILE_SHARE = 0.1
_KEPT_BYTES = 4 * _BYTES_PER_MIB
STEP_S = 0.005  # of one write operation, which others wait for
PAUSE_S = 0.005  # between two steps: the writes of others come first
_BUSY_PAUSE_S = 0.1  # while writes wait
BACKGROUND_S = 10.0  # of one run
_STEP_PAGES = 8  # between two looks at the time
_EXCLUSIVE_WAIT_MS = 500

_INCREMENTAL = 2  # https://www.sqlite.org/pragma.html#pragma_auto_vacuum
_COUNT_PAGES = """
    SELECT page_count * page_size, freelist_count * page_size, auto_vacuum
    FROM pragma_page_count, pragma_freelist_count, pragma_page_size, pragma_auto_vacuum"""


@dataclass(frozen=True, slots=True)
class Space:
    """The size of a file in bytes, how much of it is free, and whether that can be given back
    without writing the file anew."""

    total_bytes: int
    free_bytes: int
    is_incremental: bool

    @property
    def is_worthwhile(self) -> bool:
        """Whether a background run should begin."""
        is_much = self.free_bytes >= max(WORTHWHILE_BYTES, _WORTHWHILE_SHARE * self.total_bytes)
        return is_much and self.is_incremental


def read_space(connection: sqlite3.Connection) -> Space:
    """Return the size of the file as this connection sees it; the log is not counted."""
    total, free, mode = connection.execute(_COUNT_PAGES).fetchone()
    return Space(total, free, mode == _INCREMENTAL)


def set_incremental(connection: sqlite3.Connection) -> None:
    """Let free pages of this file be given back. It has an effect on an empty file, before WAL is
    switched on, or with the next VACUUM."""
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")


def release_some(connection: sqlite3.Connection) -> int:
    """Give back free pages for about STEP_S; return how many bytes."""
    before = read_space(connection)
    until = time.monotonic() + STEP_S
    free = before.free_bytes
    while free and time.monotonic() < until:
        # Each row that is fetched is a page.
        connection.execute(f"PRAGMA incremental_vacuum({_STEP_PAGES})").fetchall()
        free = read_space(connection).free_bytes
    return before.total_bytes - read_space(connection).total_bytes


async def release_in_background(engine: Engine) -> int:
    """Give back free pages if there are many, for at most BACKGROUND_S, and only while no write
    waits; return how many bytes."""
    if not (await engine.readers.run(read_space)).is_worthwhile:
        return 0
    until = time.monotonic() + BACKGROUND_S
    total = 0
    while time.monotonic() < until:
        if engine.writer.stats().queue_depth:
            await asyncio.sleep(_BUSY_PAUSE_S)
            continue
        released = await engine.writer.run(release_some)
        total += released
        if not released or (await engine.readers.run(read_space)).free_bytes <= _KEPT_BYTES:
            break
        await asyncio.sleep(PAUSE_S)
    return total


def vacuum_sqlite(settings: Settings) -> Vacuumed:
    """Give back all free pages, in steps between which other processes write.

    A file that lacks the setting for this is written anew, while no other process has it open.
    Raises ConfigurationError if one has.
    """
    path = database_path(settings)
    try:
        with contextlib.closing(open_connection(path, settings, query_only=False)) as connection:
            is_incremental = read_space(connection).is_incremental
            _fold(connection)
            before = path.stat().st_size
            while is_incremental and release_some(connection):
                time.sleep(PAUSE_S)
        if not is_incremental:
            _write_anew(path, settings)
        with contextlib.closing(open_connection(path, settings, query_only=False)) as connection:
            _fold(connection)
            kept = read_space(connection)
    except sqlite3.Error as exc:
        raise ConfigurationError(f"The database {path} cannot be vacuumed: {exc}.") from exc
    # A reader of an earlier state may keep SQLite from cutting the file off for some moments.
    after = min(path.stat().st_size, kept.total_bytes)
    return Vacuumed(before, after, "")


def _write_anew(path: Path, settings: Settings) -> None:
    """Write the whole file anew, with the setting. Raises ConfigurationError if another process has
    it open."""
    with contextlib.closing(open_connection(path, settings, query_only=False)) as connection:
        connection.execute(f"PRAGMA busy_timeout = {_EXCLUSIVE_WAIT_MS}")
        # In WAL mode, before the first read, it takes a lock that no other connection lets it have.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        try:
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
        except sqlite3.OperationalError as exc:
            raise ConfigurationError(
                f"The database {path} was made by an older version, so this once its file has to be "
                "written anew, and a process has it open. Stop all servers, stdio processes and "
                "commands that use it, run this again, and start them."
            ) from exc
        set_incremental(connection)
        connection.execute("VACUUM")


def _fold(connection: sqlite3.Connection) -> None:
    """Move the log into the file, as far as no reader needs it, without holding up anybody."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
