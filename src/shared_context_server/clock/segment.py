"""Creates, attaches and unlinks named shared memory segments of one record.

The names are compatible with `multiprocessing.shared_memory`. Its class is not used on POSIX: before
Python 3.13 it registers attached segments with the resource tracker, which unlinks them when the
reader exits. Here only the daemon unlinks.
"""

import mmap
import os
import re
import sys
from dataclasses import dataclass

from shared_context_server.clock.errors import OptionError, SegmentAccessError, SegmentLayoutError
from shared_context_server.clock.layout import RECORD_SIZE
from shared_context_server.clock.owners import find_trusted_users, require_trusted

MODE = 0o644
"""Every user can read, only the daemon's user can write."""

_PREFIX = re.compile(r"[A-Za-z0-9._-]{0,200}")


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """A mapped segment. It is unmapped when the last reference to `view` goes.

    `identity` is the device and inode. It differs if another segment got the same name. The inode
    is 0 where the system does not tell it.
    """

    name: str
    view: memoryview
    identity: tuple[int, int]
    was_created: bool = False


def check_prefix(prefix: str) -> str:
    """Return `prefix` if a segment's name can begin with it. Raises OptionError."""
    if not _PREFIX.fullmatch(prefix):
        raise OptionError(
            "prefix", f"{prefix!r} must be at most 200 letters, digits, '.', '_' or '-'"
        )
    return prefix


if sys.platform == "win32":
    from multiprocessing.shared_memory import SharedMemory

    # On Windows a segment has no owner to check. It exists as long as a process maps it, so nothing
    # can replace it under a reader, and there is nothing to unlink.

    def attach_segment(name: str, trusted_users: frozenset[int] | None = None) -> Segment:
        """Map `name`. Raises FileNotFoundError if there is none."""
        return _map(SharedMemory(name), was_created=False)

    def create_segment(name: str) -> Segment:
        """Map `name` for writing: a new one, or the one that a dead daemon left."""
        try:
            return _map(SharedMemory(name, create=True, size=RECORD_SIZE), was_created=True)
        except FileExistsError:
            return _map(SharedMemory(name), was_created=False)

    def is_current(segment: Segment, *, if_unknown: bool) -> bool:
        return True

    def unlink_segment(segment: Segment) -> None:
        return None

    def _map(memory: SharedMemory, *, was_created: bool) -> Segment:
        view = memory.buf
        assert view is not None
        return Segment(memory.name, view[:RECORD_SIZE], (0, 0), was_created)

else:
    # The module that multiprocessing.shared_memory uses; typeshed has no stubs for it.
    from _posixshmem import shm_open, shm_unlink  # type: ignore[import-not-found, unused-ignore]

    def attach_segment(name: str, trusted_users: frozenset[int] | None = None) -> Segment:
        """Map `name` read-only.

        Raises FileNotFoundError if it does not exist yet, SegmentLayoutError if it is too small,
        SegmentAccessError if this user cannot read it, or if a user who is not in `trusted_users`
        (None: this user and root) can write to it.
        """
        if trusted_users is None:
            trusted_users = find_trusted_users(None)
        fd = _open(name, os.O_RDONLY)
        try:
            state = os.fstat(fd)
            require_trusted(name, state, trusted_users)
            if state.st_size == 0:
                # The daemon has just created it and has not set its size yet.
                raise FileNotFoundError(name)
            if state.st_size < RECORD_SIZE:
                raise SegmentLayoutError(name, f"{state.st_size} bytes instead of {RECORD_SIZE}")
            view = _map(name, fd, mmap.ACCESS_READ)
        finally:
            os.close(fd)
        return Segment(name, view, (state.st_dev, state.st_ino))

    def create_segment(name: str) -> Segment:
        """Map `name` for writing: a new segment, or the one that a dead daemon left.

        A segment that another user can write to is replaced. The caller holds the writer lock.
        Raises SegmentAccessError.
        """
        fd, was_created = _take_or_create(name)
        try:
            _reserve(name, fd)
            state = os.fstat(fd)
            view = _map(name, fd, mmap.ACCESS_WRITE)
        finally:
            os.close(fd)
        return Segment(name, view, (state.st_dev, state.st_ino), was_created)

    def _take_or_create(name: str) -> tuple[int, bool]:
        try:
            fd = _open(name, os.O_RDWR)
        except FileNotFoundError:
            return _create(name), True
        try:
            require_trusted(name, os.fstat(fd), frozenset({os.geteuid()}))
        except SegmentAccessError:
            os.close(fd)
            _unlink(name)
            return _create(name), True
        return fd, False

    def _create(name: str) -> int:
        return _open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def _reserve(name: str, fd: int) -> None:
        """Set the size and allocate the memory: writing to unallocated memory can kill a process."""
        try:
            if sys.platform == "linux":
                os.posix_fallocate(fd, 0, RECORD_SIZE)
            elif os.fstat(fd).st_size < RECORD_SIZE:
                os.ftruncate(fd, RECORD_SIZE)
        except OSError as exc:
            raise SegmentAccessError(name, _describe(exc)) from exc

    def _map(name: str, fd: int, access: int) -> memoryview:
        try:
            return memoryview(mmap.mmap(fd, RECORD_SIZE, access=access))
        except OSError as exc:
            raise SegmentAccessError(name, _describe(exc)) from exc

    def is_current(segment: Segment, *, if_unknown: bool) -> bool:
        """Whether the segment still has its name: it was neither unlinked nor replaced.

        `if_unknown` is the result where the system does not tell the inode (macOS).
        """
        try:
            fd = _open(segment.name, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            state = os.fstat(fd)
        finally:
            os.close(fd)
        if state.st_ino == 0:
            return if_unknown
        return segment.identity == (state.st_dev, state.st_ino)

    def unlink_segment(segment: Segment) -> None:
        """Remove the name if it still belongs to this segment. Existing mappings stay valid."""
        if is_current(segment, if_unknown=True):
            _unlink(segment.name)

    def _open(name: str, flags: int) -> int:
        try:
            # O_NONBLOCK: opening a pipe of this name must not block. shm_open does not follow
            # symbolic links.
            fd: int = shm_open(f"/{name}", flags | os.O_NONBLOCK, mode=MODE)
            return fd
        except FileNotFoundError:
            raise
        except PermissionError as exc:
            raise SegmentAccessError(name, f"permission denied to user {os.geteuid()}") from exc
        except OSError as exc:
            raise SegmentAccessError(name, _describe(exc)) from exc

    def _describe(exc: OSError) -> str:
        return f"the system says {exc.strerror!r}"

    def _unlink(name: str) -> None:
        try:
            shm_unlink(f"/{name}")
        except FileNotFoundError:
            return
        except PermissionError as exc:
            raise SegmentAccessError(name, "it belongs to another user") from exc
