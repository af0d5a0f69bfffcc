"""Check that the files of the opened database are still the ones at its path.

SQLite works on open files. Once another file has their name, what is committed is in a file that
nobody finds, and a new opener would apply the old write-ahead log to the new database.
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

LOOK_EVERY_S = 0.25  # how old what is known of the files may be for a read

FileId = tuple[int, int]
"""Device and inode."""

_COMPANIONS = ("-wal", "-shm")


def find_file_id(path: Path) -> FileId | None:
    """None if there is no such file, or it cannot be reached."""
    try:
        found = os.stat(path)  # noqa: PTH116 - once a commit: without making objects
    except OSError:
        return None
    return found.st_dev, found.st_ino


def companions(path: Path) -> list[Path]:
    """The database's write-ahead log and its shared memory."""
    return [path.with_name(path.name + suffix) for suffix in _COMPANIONS]


class OpenedFile:
    """The files of one database that this process has open. May be used by any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # SQLite makes the other two beside the file, not beside a link to it.
        self._companions = companions(path.resolve())
        self._file_id: FileId | None = None
        self._companion_ids: list[FileId | None] = []
        self._looked_at = 0.0
        self._fault: str | None = None

    def note(self) -> None:
        """Remember which files these are: to be called while a connection is open that has read, so
        that all three are there and stay as long as it does."""
        self._file_id = find_file_id(self._path)
        self._companion_ids = [find_file_id(path) for path in self._companions]
        _write_record(self._path, _Record(self._file_id, self._companion_ids[0]))

    def require_in_place(self, *, at_once: bool) -> None:
        """Raise Unavailable if the files are not those at the path; `at_once`: as of now, not of a
        quarter of a second ago."""
        now = time.monotonic()
        is_due = now - self._looked_at >= LOOK_EVERY_S
        if is_due or at_once:
            self._look(fully=is_due)
        if is_due:
            self._looked_at = now
        if self._fault is not None:
            raise not_in_place(self._fault, str(self._path))

    def close(self) -> None:
        """Before the last connection is closed: see to it that nobody applies the log to another
        database."""
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
            # Not at each commit: it would cost two more calls, and SQLite still folds its log into
            # the database when it is closed.
            ids = [find_file_id(path) for path in self._companions]
            is_same = ids == self._companion_ids
            self._fault = None if is_same else "The database's -wal or -shm file has been removed."

    def _set_companions_aside(self) -> None:
        for path, ours in zip(self._companions, self._companion_ids, strict=True):
            if ours is not None and find_file_id(path) == ours:
                _set_aside(path)


def is_log_stale(path: Path) -> bool:
    """Whether another file was put in the database's place while a process had it open that was then
    killed: the log beside it is the old file's, and would damage the new one.

    Told by the record of who was opened last: the database is another file, the log still the same. In
    a copy of the whole directory both are others.
    """
    log, _ = companions(path.resolve())
    recorded = _read_record(path)
    if recorded is None or find_file_id(log) != recorded.log:
        return False
    return find_file_id(path) != recorded.database


def set_stale_log_aside(path: Path) -> None:
    """To be called before the database is opened."""
    if is_log_stale(path):
        for companion in companions(path.resolve()):
            _set_aside(companion)


class _Record(NamedTuple):
    database: FileId | None
    log: FileId | None


def _read_record(path: Path) -> _Record | None:
    """None if there is none, or it is not whole."""
    try:
        database, log = json.loads(_record_path(path).read_text(encoding="ascii"))
        return _Record(tuple(database), tuple(log))
    except (OSError, ValueError, TypeError):
        return None


def _write_record(path: Path, record: _Record) -> None:
    if _read_record(path) != record:
        with contextlib.suppress(OSError):  # of a full disk the first write tells
            _record_path(path).touch(mode=0o600)
            _record_path(path).write_text(json.dumps(record), encoding="ascii")


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.opened")


def _set_aside(path: Path) -> None:
    """Rename it; nothing is deleted, for committed messages may be in it."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    with contextlib.suppress(OSError):  # another process was quicker
        path.rename(path.with_name(f"{path.name}.replaced-{stamp}"))
