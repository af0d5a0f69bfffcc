"""A file lock that allows one writer for each segment, or for several segments of one writer.

The kernel releases the lock when the process ends, also after a crash. A pid in shared memory would
not do: the pid of a dead daemon can be used again, and other containers have other pids.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType

from shared_context_server.clock.errors import (
    DaemonAlreadyRunningError,
    SegmentAccessError,
    WriterAlreadyRunningError,
)
from shared_context_server.clock.layout import CLOCK_LAYOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

TRIES = 20
PAUSE_S = 0.001
"""A reader that asks whether the writer lives holds the lock for some microseconds."""


class WriterLock:
    """The lock `lock_name` of `prefix`, held from `__enter__` to `__exit__`, which removes its file.

    Entering raises WriterAlreadyRunningError if another process holds the lock, and
    SegmentAccessError if the file belongs to another user.
    """

    def __init__(self, prefix: str, lock_name: str) -> None:
        self._path = lock_path(prefix, lock_name)
        self._fd = -1

    def __enter__(self) -> Self:
        self._fd = _acquire(self._path)
        os.ftruncate(self._fd, 0)
        os.write(self._fd, b"%d\n" % os.getpid())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if sys.platform != "win32":
            # Before the lock is released, so that nobody can lock a file that has no name any more.
            with suppress(FileNotFoundError):
                os.unlink(self._path)
        os.close(self._fd)

    def leave_to_parent(self) -> None:
        """In a forked process: forget the lock without releasing it."""
        os.close(self._fd)


@contextmanager
def hold_writer_lock(prefix: str) -> Iterator[WriterLock]:
    """Hold the lock of the clock daemon of `prefix`. Raises DaemonAlreadyRunningError if another
    daemon holds it, or SegmentAccessError."""
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(WriterLock(prefix, CLOCK_LAYOUT.lock_name))
        except WriterAlreadyRunningError as exc:
            raise DaemonAlreadyRunningError(prefix, exc.pid) from exc
        yield lock


def lock_path(prefix: str, lock_name: str) -> str:
    """The path of the lock. Containers that share the segments' directory share the lock too."""
    shared = "/dev/shm"  # noqa: S108 - the segments are there too
    if not os.path.isdir(shared):
        import tempfile  # noqa: PLC0415 - takes memory that Linux does not need

        shared = tempfile.gettempdir()
    return f"{shared}/{prefix}{lock_name}"


def is_writer_alive(prefix: str, lock_name: str, pid: int) -> bool:
    """Whether a process holds the lock. If this user may not ask, whether process `pid` lives."""
    try:
        fd = os.open(lock_path(prefix, lock_name), os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return False
    except OSError:
        return pid != 0 and is_process_alive(pid)
    try:
        _lock(fd)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)  # releases the lock
    return False


def is_process_alive(pid: int) -> bool:
    """Whether there is such a process. True if the system does not tell."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat_file:
            state = stat_file.read().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state not in (b"Z", b"X")  # dead, but its parent has not asked for its exit status


def _acquire(path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    name, directory = os.path.basename(path), os.path.dirname(path)
    tries = 0
    while True:
        try:
            fd = os.open(path, flags, 0o600)
        except PermissionError as exc:
            reason = f"the lock file in {directory} belongs to another user"
            raise SegmentAccessError(name, reason) from exc
        except OSError as exc:
            raise SegmentAccessError(name, f"the system says {exc.strerror!r}") from exc
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise SegmentAccessError(name, f"the one in {directory} is not a regular file")
        try:
            _lock(fd)
            if _is_same_file(fd, path):
                return fd
        except BlockingIOError as exc:
            pid = _read_pid(fd)
            os.close(fd)
            tries += 1
            if tries == TRIES:
                raise WriterAlreadyRunningError(name, pid) from exc
            time.sleep(PAUSE_S)
            continue
        # The previous holder unlinked the file between our open and our lock: try again.
        os.close(fd)


def _is_same_file(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
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
