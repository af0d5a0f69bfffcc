"""Which file systems may hold the database."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from shared_context_server.errors import ConfigurationError
from shared_context_server.storage.sqlite.engine.filesystem import (
    find_filesystem_type,
    require_shareable,
)


def mounts(tmp_path: Path, *entries: tuple[object, str]) -> Path:
    """A mountinfo with these (mount point, type), in the format of proc(5)."""
    lines = [
        f"{20 + index} 1 8:{index} / {str(point).replace(' ', chr(92) + '040')} rw,relatime shared:1 - {kind} /dev/x rw"
        for index, (point, kind) in enumerate(entries)
    ]
    path = tmp_path / "mountinfo"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_file_system_of_this_test_is_fit(tmp_path: Path) -> None:
    require_shareable(tmp_path)
    assert list(tmp_path.iterdir()) == []  # the probe leaves nothing behind


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p"])
def test_network_file_systems_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    mountinfo = mounts(tmp_path, ("/", "ext4"), (tmp_path, kind))
    with pytest.raises(ConfigurationError, match=kind):
        require_shareable(tmp_path, mountinfo=mountinfo)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "apfs"])
def test_local_file_systems_are_accepted(tmp_path: Path, kind: str) -> None:
    require_shareable(tmp_path, mountinfo=mounts(tmp_path, ("/", "nfs"), (tmp_path, kind)))


def test_the_innermost_and_uppermost_mount_counts(tmp_path: Path) -> None:
    inner = tmp_path / "with space" / "data"
    inner.mkdir(parents=True)
    mountinfo = mounts(
        tmp_path,
        ("/", "ext4"),
        (tmp_path / "with space", "nfs"),
        (tmp_path / "with space", "xfs"),
        (tmp_path / "with", "cifs"),
    )
    assert find_filesystem_type(inner, mountinfo) == "xfs"
    assert find_filesystem_type(tmp_path, mountinfo) == "ext4"


def test_without_a_list_of_mounts_the_locks_decide(tmp_path: Path) -> None:
    missing = tmp_path / "no such file"
    assert find_filesystem_type(tmp_path, missing) is None
    require_shareable(tmp_path, mountinfo=missing)


def test_locks_that_do_not_exclude_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not lock"):
        require_shareable(tmp_path, try_lock=lambda descriptor: True)


def test_locks_that_are_never_had_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not lock"):
        require_shareable(tmp_path, try_lock=lambda descriptor: False)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_refused(tmp_path: Path, code: int) -> None:
    def try_lock(descriptor: int) -> bool:
        raise OSError(code, os.strerror(code))

    with pytest.raises(ConfigurationError, match="does not lock"):
        require_shareable(tmp_path, try_lock=try_lock)


def test_a_system_that_cannot_be_probed_is_trusted(tmp_path: Path) -> None:
    def try_lock(descriptor: int) -> bool:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    require_shareable(tmp_path, try_lock=try_lock)


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="missing"):
        require_shareable(tmp_path / "missing")
