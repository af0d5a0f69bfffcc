"""The private directory of an in-memory database, `sqlite:///:memory:`.

The database is an ordinary file in it, so that it has the same write-ahead log, readers and limits as
every other one. On Linux the directory is in /dev/shm, which is memory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shared_context_server.errors import ConfigurationError

if sys.platform != "win32":
    import fcntl

_PREFIX = "scs-memory-"
_MEMORY_FILE_SYSTEM = Path("/dev/shm")  # noqa: S108 - the directory that is made in it is private


@contextlib.contextmanager
def open_private_directory() -> Iterator[Path]:
    """Make a directory for a with block, readable by its owner only, and remove it at the end.

    This also removes the directories of processes that were killed. Raises ConfigurationError if it
    cannot be made.
    """
    base = _find_base()
    try:
        _remove_abandoned(base)
        path, descriptor = _make_locked(base)
    except OSError as exc:
        raise ConfigurationError(
            f"DATABASE_URL: sqlite:///:memory: needs a directory in {base}: {exc.strerror}."
        ) from exc
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def _find_base() -> Path:
    if os.access(_MEMORY_FILE_SYSTEM, os.W_OK | os.X_OK):
        return _MEMORY_FILE_SYSTEM
    return Path(tempfile.gettempdir())


def _make_locked(base: Path) -> tuple[Path, int]:
    """Make a directory and lock it; return it and the descriptor that holds the lock.

    Another process may remove the directory between the two steps, so a lock counts only if the
    directory is still there.
    """
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists():
            return path, descriptor
        os.close(descriptor)


def _remove_abandoned(base: Path) -> None:
    """Remove this user's directories that no living process has locked."""
    for path in base.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, in use, or just removed
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(descriptor).st_uid == os.getuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)
