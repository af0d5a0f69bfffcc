"""Makes files private to their owner, and refuses files and directories of other users."""

from __future__ import annotations

import logging
import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path

from shared_context_server.errors import ConfigurationError

ROOT = 0
_log = logging.getLogger(__name__)
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def require_private_file(path: Path) -> None:
    """Remove the permissions of other users from a file, if it exists, and log that.

    A file of root may be a mount and is not changed, nor is anything but a regular file. Raises
    ConfigurationError if the file belongs to another user, or if its mode cannot be changed.
    """
    info = _find_own(path)
    mode = 0 if info is None else stat.S_IMODE(info.st_mode)
    if info is None or not stat.S_ISREG(info.st_mode) or not mode & _OTHERS:
        return
    if info.st_uid != os.geteuid():
        _log.warning("%s belongs to root, and other users can access it (mode %04o)", path, mode)
        return
    try:
        path.chmod(mode & ~_OTHERS)
    except OSError as exc:
        raise ConfigurationError(
            f"{path} is open to other users (mode {mode:04o}) and cannot be made private: "
            f"{exc.strerror}."
        ) from exc
    _log.warning("%s was open to other users (mode %04o) and is private now", path, mode)


def require_own_directory(path: Path) -> None:
    """Raise ConfigurationError if the directory belongs to another user. Log it if all can write to it.

    Its mode is not changed, because it may contain other files.
    """
    info = _find_own(path)
    if info is not None and info.st_mode & stat.S_IWOTH and not info.st_mode & stat.S_ISVTX:
        _log.warning("every user can write to %s and replace its files", path)


def _find_own(path: Path) -> os.stat_result | None:
    """The state of a file of this user or of root; None if it does not exist."""
    try:
        info = path.stat()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be used: {exc.strerror}.") from exc
    if info.st_uid not in (os.geteuid(), ROOT):
        raise ConfigurationError(
            f"{path} belongs to the user {_name(info.st_uid)}, but this process runs as "
            f"{_name(os.geteuid())}. Run it as that user, or choose another path."
        )
    return info


def _name(uid: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)
