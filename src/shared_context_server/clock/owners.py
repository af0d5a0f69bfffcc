"""Whose segments are believed: the reader's own user's, root's, and one more user's if it is named.

Anybody may make a segment of any name in shared memory, so its name says nothing about its writer.
"""

import os
import stat
import sys

from shared_context_server.clock.errors import OptionError, SegmentAccessError

if sys.platform != "win32":
    import pwd

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
ROOT = 0
MAX_USER = 2**32 - 2  # the number after it means "no user" to the system


def check_owner(owner: str) -> str:
    """`owner` itself if it is empty or names a user of this system. Raises OptionError."""
    if owner:
        _find_user(owner)
    return owner


def find_trusted_users(owner: str | int | None) -> frozenset[int]:
    """The numbers of the users whose segments are believed. Raises OptionError."""
    if sys.platform == "win32":
        return frozenset()
    trusted = {os.geteuid(), ROOT}
    if owner not in (None, ""):
        trusted.add(_find_user(owner))
    return frozenset(trusted)


def require_trusted(name: str, state: os.stat_result, trusted_users: frozenset[int]) -> None:
    """Raise SegmentAccessError unless one of `trusted_users`, and nobody else, may write to it."""
    # 0: macOS does not say what kind of file a segment is.
    if stat.S_IFMT(state.st_mode) not in (stat.S_IFREG, 0):
        raise SegmentAccessError(name, "it is no shared memory")
    if state.st_uid not in trusted_users:
        raise SegmentAccessError(
            name,
            f"it belongs to user {state.st_uid}, who is not trusted. If this is right, set "
            f"CLOCK_OWNER={state.st_uid} (in Python: owner={state.st_uid})",
        )
    if state.st_mode & WRITABLE_BY_OTHERS:
        mode = stat.S_IMODE(state.st_mode)
        raise SegmentAccessError(name, f"others than its owner may write to it (mode {mode:04o})")


def _find_user(owner: str | int | None) -> int:
    text = str(owner)
    if text.isascii() and text.isdigit():
        if int(text[:11]) <= MAX_USER:
            return int(text)
    elif sys.platform != "win32":
        try:
            return pwd.getpwnam(text).pw_uid
        except (KeyError, ValueError):
            pass
    raise OptionError("owner", f"there is no user {text[:100]!r} on this system")
