"""Creates, attaches and unlinks named shared memory segments.

The names are compatible with `multiprocessing.shared_memory`. Its class is not used on POSIX: before
Python 3.13 it registers attached segments with the resource tracker, which unlinks them when the
reader exits. Here only the writer unlinks.
"""

import mmap
import os
import stat
import sys
from collections.abc import Callable

from shared_context_server.clock.errors import OptionError, SegmentAccessError, SegmentLayoutError
from shared_context_server.clock.owners import find_trusted_users, require_trusted
from shared_context_server.clock.segment_layout import MAX_SIZE, NAME_CHARACTERS

MODE = 0o644
"""Every user can read, only the writer's user can write."""

MAX_PREFIX = 200


class Segment:
    """A mapped segment. It is unmapped when the last reference to `view` goes.

    `identity` is the device and inode. It differs if another segment got the same name. The inode
    is 0 where the system does not tell it.
    """

    def __init__(
        self, name: str, view: memoryview, identity: tuple[int, int], was_created: bool = False
    ) -> None:
        self.name = name
        self.view = view
        self.identity = identity
        self.was_created = was_created


RequireDead = Callable[[Callable[[], bytes]], None]


def check_prefix(prefix: str) -> str:
    """Return `prefix` if a segment's name can begin with it. Raises OptionError."""
    if len(prefix) > MAX_PREFIX or not set(prefix) <= NAME_CHARACTERS:
        raise OptionError(
            "prefix", f"{prefix!r} must be at most 200 letters, digits, '.', '_' or '-'"
        )
    return prefix


if sys.platform == "win32":
    from multiprocessing.shared_memory import SharedMemory

    # On Windows a segment has no owner to check. It exists as long as a process maps it, so nothing
    # can replace it under a reader, and there is nothing to unlink.

    def attach_segment(
        name: str, size: int, trusted_users: frozenset[int] | None = None
    ) -> Segment:
        """Map `name`. Raises FileNotFoundError if there is none."""
        return _map(SharedMemory(name), size, was_created=False)

    def create_segment(name: str, size: int, require_dead: RequireDead | None = None) -> Segment:
        """Map `name` for writing: a new one, or the one that a dead writer left."""
        try:
            return _map(SharedMemory(name, create=True, size=size), size, was_created=True)
        except FileExistsError:
            left = _map(SharedMemory(name), size, was_created=False)
            if require_dead is not None:
                require_dead(left.view.tobytes)
            return left

    def is_current(segment: Segment, *, if_unknown: bool) -> bool:
        return True

    def unlink_segment(segment: Segment) -> None:
        return None

    def _map(memory: SharedMemory, size: int, *, was_created: bool) -> Segment:
        view = memory.buf
        assert view is not None
        return Segment(memory.name, view[:size], (0, 0), was_created)

else:
    # The module that multiprocessing.shared_memory uses; typeshed has no stubs for it.
    from _posixshmem import shm_open, shm_unlink  # type: ignore[import-not-found, unused-ignore]

    def attach_segment(
        name: str, size: int, trusted_users: frozenset[int] | None = None
    ) -> Segment:
        """Map the first `size` bytes of `name` read-only.

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
                # The writer has just created it and has not set its size yet.
                raise FileNotFoundError(name)
            if state.st_size < size:
                raise SegmentLayoutError(name, f"{state.st_size} bytes instead of {size}")
            view = _map(name, fd, size, mmap.ACCESS_READ)
        finally:
            os.close(fd)
        return Segment(name, view, (state.st_dev, state.st_ino))

    def create_segment(name: str, size: int, require_dead: RequireDead | None = None) -> Segment:
        """Map `name` for writing: a new segment, or the one that a dead writer left.

        `require_dead` gets a function that reads a segment that exists; it raises if the writer lives. A segment that
        another user can write to is replaced. The caller holds the writer lock. Raises
        SegmentAccessError.
        """
        fd, was_created = _take_or_create(name, require_dead)
        try:
            _reserve(name, fd, size)
            state = os.fstat(fd)
            view = _map(name, fd, size, mmap.ACCESS_WRITE)
        finally:
            os.close(fd)
        return Segment(name, view, (state.st_dev, state.st_ino), was_created)

    def _take_or_create(name: str, require_dead: RequireDead | None) -> tuple[int, bool]:
        try:
            fd = _open(name, os.O_RDWR)
        except FileNotFoundError:
            return _create(name), True
        try:
            _require_dead(name, fd, require_dead)
        except BaseException:
            os.close(fd)
            raise
        try:
            require_trusted(name, os.fstat(fd), frozenset({os.geteuid()}))
        except SegmentAccessError:
            os.close(fd)
            _unlink(name)
            return _create(name), True
        return fd, False

    def _require_dead(name: str, fd: int, require_dead: RequireDead | None) -> None:
        state = os.fstat(fd)
        is_memory = stat.S_IFMT(state.st_mode) in (stat.S_IFREG, 0)
        if require_dead is None or not is_memory or not state.st_size:
            return
        size = min(state.st_size, MAX_SIZE)
        if sys.platform == "linux":
            # Not mapped: if its owner shrinks it meanwhile, reading memory would kill this process.
            require_dead(lambda: os.pread(fd, size, 0))
        else:
            require_dead(_map(name, fd, size, mmap.ACCESS_READ).tobytes)

    def _create(name: str) -> int:
        return _open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def _reserve(name: str, fd: int, size: int) -> None:
        """Set the size and allocate the memory: writing to unallocated memory can kill a process."""
        try:
            if sys.platform == "linux":
                os.posix_fallocate(fd, 0, size)
            elif os.fstat(fd).st_size < size:
                os.ftruncate(fd, size)
        except OSError as exc:
            raise SegmentAccessError(name, _describe(exc)) from exc

    def _map(name: str, fd: int, size: int, access: int) -> memoryview:
        try:
            return memoryview(mmap.mmap(fd, size, access=access))
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
