"""A file lock that allows one daemon for each prefix.

The kernel releases the lock when the process ends, also after a crash. A pid in shared memory would
not do: the pid of a dead daemon can be used again, and other containers have other pids.
"""

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared_context_server.clock.errors import DaemonAlreadyRunningError, SegmentAccessError


@contextmanager
def hold_writer_lock(prefix: str) -> Iterator[None]:
    """Hold the lock of `prefix` until the block ends, then remove its file.

    Does not wait: raises DaemonAlreadyRunningError if another daemon holds the lock, and
    SegmentAccessError if the file belongs to another user.
    """
    path = lock_path(prefix)
    fd = _acquire(path, prefix)
    try:
        os.ftruncate(fd, 0)
        os.write(fd, b"%d\n" % os.getpid())
        yield
    finally:
        if sys.platform != "win32":
            # Before the lock is released, so that nobody can lock a file that has no name any more.
            path.unlink(missing_ok=True)
        os.close(fd)


def lock_path(prefix: str) -> Path:
    """The path of the lock. Containers that share the segments' directory share the lock too."""
    shared = Path("/dev/shm")  # noqa: S108 - the segments are there too
    directory = shared if shared.is_dir() else Path(tempfile.gettempdir())
    return directory / f"{prefix}time_daemon_lock"


def _acquire(path: Path, prefix: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    while True:
        try:
            fd = os.open(path, flags, 0o600)
        except PermissionError as exc:
            reason = f"the lock file in {path.parent} belongs to another user"
            raise SegmentAccessError(path.name, reason) from exc
        except OSError as exc:
            raise SegmentAccessError(path.name, f"the system says {exc.strerror!r}") from exc
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise SegmentAccessError(path.name, f"the one in {path.parent} is not a regular file")
        try:
            _lock(fd)
            if _is_same_file(fd, path):
                return fd
        except BlockingIOError as exc:
            pid = _read_pid(fd)
            os.close(fd)
            raise DaemonAlreadyRunningError(prefix, pid) from exc
        # The previous holder unlinked the file between our open and our lock: try again.
        os.close(fd)


def _is_same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _read_pid(fd: int) -> int | None:
    with suppress(ValueError, OSError):
        return int(os.read(fd, 32))
    return None


if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> None:
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError as exc:
            raise BlockingIOError from exc

else:
    import fcntl

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
