"""Check that the database files that are open are still the ones at the database's path.

SQLite works on open files. If another file takes their name, commits go to a file that nobody can
find, and the next process to open the path would apply the old write-ahead log to the new database.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from shared_context_server.storage.sqlite.engine.failures import not_in_place

LOOK_EVERY_S = 0.25  # how old the last check may be for a read

FileId = tuple[int, int]
"""Device and inode."""

_COMPANIONS = ("-wal", "-shm")


def find_file_id(path: Path) -> FileId | None:
    """Return the file's id; None if it is missing or cannot be reached."""
    try:
        found = os.stat(path)  # noqa: PTH116 - once a commit: without making objects
    except OSError:
        return None
    return found.st_dev, found.st_ino


def companions(path: Path) -> list[Path]:
    """Return the paths of the database's write-ahead log and shared memory."""
    return [path.with_name(path.name + suffix) for suffix in _COMPANIONS]


class OpenedFile:
    """The files of one database that this process has open. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # SQLite makes the other two next to the file, not next to a link to it.
        self._companions = companions(path.resolve())
        self._file_id: FileId | None = None
        self._companion_ids: list[FileId | None] = []
        self._looked_at = 0.0
        self._fault: str | None = None

    def note(self) -> None:
        """Remember which files these are. To be called while a connection that has read is open, so
        that all three files exist and stay."""
        self._file_id = find_file_id(self._path)
        self._companion_ids = [find_file_id(path) for path in self._companions]
        _write_record(self._path, _Record(self._file_id, self._companion_ids[0]))

    def require_in_place(self, *, at_once: bool) -> None:
        """Raise Unavailable if the files are not those at the path: now with `at_once`, else as of
        a quarter of a second ago."""
        now = time.monotonic()
        is_due = now - self._looked_at >= LOOK_EVERY_S
        if is_due or at_once:
            self._look(fully=is_due)
        if is_due:
            self._looked_at = now
        if self._fault is not None:
            raise not_in_place(self._fault, str(self._path))

    def close(self) -> None:
        """Make sure that nobody applies the log to another database. To be called before the last
        connection is closed."""
        if find_file_id(self._path) != self._file_id:
            self._set_companions_aside()

    def _look(self, *, fully: bool) -> None:
        found = find_file_id(self._path)
        if found is None:
            self._fault = "The database file has been removed."
        elif found != self._file_id:
            self._fault = "The database file has been replaced."
            self._set_companions_aside()
        elif fully:
            # Not at each commit: it would cost two more calls, and SQLite still moves its log into
            # the database when it is closed.
            ids = [find_file_id(path) for path in self._companions]
            is_same = ids == self._companion_ids
            self._fault = None if is_same else "The database's -wal or -shm file has been removed."

    def _set_companions_aside(self) -> None:
        for path, ours in zip(self._companions, self._companion_ids, strict=True):
            if ours is not None and find_file_id(path) == ours:
                _set_aside(path)


def is_log_stale(path: Path) -> bool:
    """Whether the log next to the database belongs to an older file. This happens when the file was
    replaced while a process had it open that was then killed. The log would damage the new
    database.

    A record of the last opened files tells: the database is another file, and the log is the same.
    In a copy of the whole directory both are others.
    """
    log, _ = companions(path.resolve())
    recorded = _read_record(path)
    if recorded is None or find_file_id(log) != recorded.log:
        return False
    return find_file_id(path) != recorded.database


def set_stale_log_aside(path: Path) -> None:
    """Rename a stale log. To be called before the database is opened."""
    if is_log_stale(path):
        for companion in companions(path.resolve()):
            _set_aside(companion)


class _Record(NamedTuple):
    database: FileId | None
    log: FileId | None


def _read_record(path: Path) -> _Record | None:
    """Return the record; None if there is none, or it is incomplete."""
    try:
        database, log = json.loads(_record_path(path).read_text(encoding="ascii"))
        return _Record(tuple(database), tuple(log))
    except (OSError, ValueError, TypeError):
        return None


def _write_record(path: Path, record: _Record) -> None:
    if _read_record(path) != record:
        with contextlib.suppress(OSError):  # a full disk is reported by the first write
            _record_path(path).touch(mode=0o600)
            _record_path(path).write_text(json.dumps(record), encoding="ascii")


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.opened")


def _set_aside(path: Path) -> None:
    """Rename the file. Nothing is deleted, because it may contain committed messages."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    with contextlib.suppress(OSError):  # another process was quicker
        path.rename(path.with_name(f"{path.name}.replaced-{stamp}"))
