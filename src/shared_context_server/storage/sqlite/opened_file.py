"""Whether the files of the opened database are still the ones at its path.

SQLite works on open files. Once another file has their name, what is committed is in a file that
nobody finds, and a new opener would apply the old write-ahead log to the new database.
"""

from __future__ import annotations

import contextlib
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from shared_context_server.storage.sqlite.failures import not_in_place

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
        """Rename those that are ours; nothing is deleted, for committed messages may be in them."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        for path, ours in zip(self._companions, self._companion_ids, strict=True):
            if ours is not None and find_file_id(path) == ours:
                with contextlib.suppress(OSError):  # another process was quicker
                    path.rename(path.with_name(f"{path.name}.replaced-{stamp}"))
