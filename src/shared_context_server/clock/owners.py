"""Checks which user owns a shared memory segment.

A reader trusts segments of its own user, of root, and of the user that `owner` names. The name of
a segment is no proof: every user of the machine can create a segment of any name.
"""

import os
import stat
import sys

from shared_context_server.clock.errors import OptionError, SegmentAccessError

if sys.platform != "win32":
    import pwd

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
ROOT = 0
MAX_USER = 2**32 - 2  # 2**32 - 1 means "no user"


def check_owner(owner: str) -> str:
    """Return `owner` if it is empty or names a user of this system. Raises OptionError."""
    if owner:
        _find_user(owner)
    return owner


def find_trusted_users(owner: str | int | None) -> frozenset[int]:
    """The numbers of the users whose segments are trusted. Raises OptionError."""
    if sys.platform == "win32":
        return frozenset()
    trusted = {os.geteuid(), ROOT}
    if owner not in (None, ""):
        trusted.add(_find_user(owner))
    return frozenset(trusted)


def require_trusted(name: str, state: os.stat_result, trusted_users: frozenset[int]) -> None:
    """Raise SegmentAccessError unless a trusted user owns the segment and only the owner can
    write to it."""
    # 0: macOS does not tell the file type of a segment.
    if stat.S_IFMT(state.st_mode) not in (stat.S_IFREG, 0):
        raise SegmentAccessError(name, "it is not shared memory")
    if state.st_uid not in trusted_users:
        raise SegmentAccessError(
            name,
            f"its owner, user {state.st_uid}, is not trusted. To trust this user, set "
            f"CLOCK_OWNER={state.st_uid} (in Python: owner={state.st_uid})",
        )
    if state.st_mode & WRITABLE_BY_OTHERS:
        mode = stat.S_IMODE(state.st_mode)
        raise SegmentAccessError(name, f"other users can write to it (mode {mode:04o})")


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
    raise OptionError("owner", f"this system has no user {text[:100]!r}")
