"""Check whether SQLite can share a database between processes in a directory.

SQLite relies on exclusive byte-range locks, and its WAL on memory shared by all processes that have
the database open. A file system that only pretends to support them loses data silently, so it is
refused at startup.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from shared_context_server.errors import ConfigurationError

if sys.platform == "linux":
    import fcntl

TryLock = Callable[[int], bool]
"""Lock the whole file for writing through this descriptor: False if another one holds it, OSError
if the file system does not do locks."""

MOUNTINFO = Path("/proc/self/mountinfo")

# File systems that several hosts can mount. Each host would have its own shared memory for the WAL, see
# https://www.sqlite.org/wal.html ("does not work over a network filesystem"). FUSE ones are listed by daemon.
_NETWORK_TYPES = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "fuse.ceph",
        "fuse.davfs2",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.juicefs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "glusterfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "smb3",
        "smbfs",
    }
)
_OCTAL_ESCAPE = re.compile(r"\\([0-7]{3})")


def _try_lock(descriptor: int) -> bool:
    """Take an open-file-description lock. Unlike POSIX locks, two locks of one process exclude each
    other."""
    if sys.platform != "linux":
        raise OSError(errno.EINVAL, "no open-file-description locks here")
    # struct flock of fcntl(2): l_type, l_whence, l_start, l_len (0: to the end), l_pid (must be 0)
    request = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
    except OSError as exc:
        if exc.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def require_shareable(
    directory: Path, *, try_lock: TryLock = _try_lock, mountinfo: Path = MOUNTINFO
) -> None:
    """Raise ConfigurationError if the directory's file system cannot lock or is a network file
    system."""
    kind = find_filesystem_type(directory, mountinfo)
    if kind in _NETWORK_TYPES:
        raise ConfigurationError(
            f"DATA_DIR: {directory} is on a network file system ({kind}), where SQLite loses data "
            "when several processes write; choose a local directory."
        )
    if not _can_lock(directory, try_lock):
        raise ConfigurationError(
            f"DATA_DIR: the file system of {directory} ({kind or 'unknown'}) does not lock files, "
            "without which SQLite loses data; choose another directory."
        )


def _can_lock(directory: Path, try_lock: TryLock) -> bool:
    try:
        with (
            tempfile.NamedTemporaryFile(dir=directory, prefix=".lock-probe-") as first,
            Path(first.name).open("r+b", buffering=0) as second,
        ):
            return try_lock(first.fileno()) and not try_lock(second.fileno())
    except OSError as exc:
        if exc.errno == errno.EINVAL:  # this system has no such locks, so it cannot be probed
            return True
        if exc.errno in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise ConfigurationError(f"DATA_DIR: {directory} cannot be used: {exc.strerror}.") from exc


def find_filesystem_type(directory: Path, mountinfo: Path = MOUNTINFO) -> str | None:
    """Return the type of the directory's mount, from proc(5); None if it is unknown."""
    try:
        lines = mountinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    target = directory.resolve()
    best: tuple[int, str] | None = None
    for line in lines:
        mount, _, filesystem = line.partition(" - ")
        point = Path(_OCTAL_ESCAPE.sub(lambda code: chr(int(code[1], 8)), mount.split()[4]))
        # `>=`: of several mounts on one path, the last one listed is on top.
        if target.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
            best = (len(point.parts), filesystem.split()[0])
    return best[1] if best else None
