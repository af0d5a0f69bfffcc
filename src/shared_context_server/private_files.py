"""Files and directories that their owner alone may use: made so, or refused."""

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
_OF_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def require_private_file(path: Path) -> None:
    """Take the rights of other users from a file, if there is one, and log that they had some.

    What is no regular file is left as it is, and a file of root's: it may have been mounted. Raises ConfigurationError for one
    of a third user, and where this cannot be done.
    """
    info = _find_own(path)
    mode = 0 if info is None else stat.S_IMODE(info.st_mode)
    if info is None or not stat.S_ISREG(info.st_mode) or not mode & _OF_OTHERS:
        return
    if info.st_uid != os.geteuid():
        _log.warning("%s is root's, and other users may use it (mode %04o)", path, mode)
        return
    try:
        path.chmod(mode & ~_OF_OTHERS)
    except OSError as exc:
        raise ConfigurationError(
            f"{path} is open to other users (mode {mode:04o}) and cannot be made private: "
            f"{exc.strerror}."
        ) from exc
    _log.warning("%s was open to other users (mode %04o) and is private now", path, mode)


def require_own_directory(path: Path) -> None:
    """Raise ConfigurationError for a directory of a third user; log it if everybody may write to it.

    Its rights stay as they are: it may hold other things, too.
    """
    info = _find_own(path)
    if info is not None and info.st_mode & stat.S_IWOTH and not info.st_mode & stat.S_ISVTX:
        _log.warning("every user may write to %s and replace what is in it", path)


def _find_own(path: Path) -> os.stat_result | None:
    """What there is, if it is this user's or root's; None if there is nothing."""
    try:
        info = path.stat()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be used: {exc.strerror}.") from exc
    if info.st_uid not in (os.geteuid(), ROOT):
        raise ConfigurationError(
            f"{path} belongs to the user {_name(info.st_uid)}, and this process runs as "
            f"{_name(os.geteuid())}: run it as that user, or choose another place."
        )
    return info


def _name(uid: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)
