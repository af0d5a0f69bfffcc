"""Look for damage of a database file, and for what puts it at risk, while servers may use it."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings
from shared_context_server.storage.backends import Inspection, Problem
from shared_context_server.storage.sqlite.engine.connections import database_path, open_connection
from shared_context_server.storage.sqlite.engine.filesystem import require_shareable
from shared_context_server.storage.sqlite.engine.opened_file import companions
from shared_context_server.storage.sqlite.vacuum import WORTHWHILE_BYTES, read_space

_LISTED = 5  # messages of SQLite about one file
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_LARGE_LOG_BYTES = 1024**3
_BYTES_PER_MB = 1_000_000
_RESTORE = "Stop all servers, then `scs restore FILE` with your newest backup."


def inspect_sqlite(settings: Settings, *, is_thorough: bool) -> Inspection:
    """Check the pages, the references between tables, the files' modes and the file system. Reads
    the whole file."""
    path = database_path(settings)
    try:
        connection = open_connection(path, settings, query_only=True)
        with contextlib.closing(connection):
            problems = [
                *_find_damage(connection, is_thorough=is_thorough),
                *_find_risks(path),
                *_find_waste(connection),
            ]
            [newest] = connection.execute("SELECT coalesce(max(id), 0) FROM messages").fetchone()
    except sqlite3.Error as exc:
        raise ConfigurationError(f"The database {path} cannot be read: {exc}.") from exc
    size = sum(one.stat().st_size for one in (path, *companions(path)) if one.exists())
    described = f"SQLite {sqlite3.sqlite_version}, {path}, {size / _BYTES_PER_MB:.1f} MB"
    return Inspection(described, newest, problems)


def _find_damage(connection: sqlite3.Connection, *, is_thorough: bool) -> Iterator[Problem]:
    check = "integrity_check" if is_thorough else "quick_check"
    for (text,) in connection.execute(f"PRAGMA {check}({_LISTED})").fetchall():
        if text != "ok":
            yield Problem(" ".join(text.split()), _RESTORE, True)
    broken = connection.execute("PRAGMA foreign_key_check").fetchmany(_LISTED)
    for table, row, parent, _ in broken:
        yield Problem(
            f"Row {row} of {table} refers to a row of {parent} that is missing.", _RESTORE, True
        )


def _find_waste(connection: sqlite3.Connection) -> Iterator[Problem]:
    space = read_space(connection)
    if space.free_bytes >= WORTHWHILE_BYTES and not space.is_incremental:
        yield Problem(
            f"{space.free_bytes / _BYTES_PER_MB:.0f} MB of the file are free, and servers cannot give them "
            "back: an older version made it.",
            "Stop all servers, run `scs vacuum` once, and start them.",
            False,
        )


def _find_risks(path: Path) -> Iterator[Problem]:
    for file in (path, *companions(path)):
        with contextlib.suppress(FileNotFoundError):
            mode = stat.S_IMODE(file.stat().st_mode)
            if mode & _OTHERS:
                hint = f"chmod 600 {file}; somebody may have read it already."
                yield Problem(f"Other users can access {file} (mode {mode:04o}).", hint, False)
    log = companions(path)[0]
    if log.exists() and log.stat().st_size > _LARGE_LOG_BYTES:
        yield Problem(
            f"{log} is large: {log.stat().st_size / _BYTES_PER_MB:.0f} MB.",
            "A reader or a backup that never ends keeps SQLite from emptying it: look for its process.",
            False,
        )
    try:
        require_shareable(path.parent)
    except ConfigurationError as exc:
        yield Problem(str(exc), "Move the data dir to a local disk.", True)
