"""Wake the other processes on this host through datagram sockets.

Each listening process has a socket in a shared directory. After a commit, a process sends one byte
to each socket. The byte carries no information.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import socket
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path

from shared_context_server.observability.logs import get_logger

MAX_PATH_BYTES = 100  # of a socket's address: 104 to 108, depending on the system
MAX_NAME_BYTES = 32
SUFFIX = ".sock"
TEMPORARY_SUFFIX = ".bus"
# A directory's mtime has the resolution of the kernel's tick. A listing made sooner than this after a
# change may lack a later change of the same tick.
MTIME_GRAIN_NS = 50_000_000
# Temporary directories that killed processes left are removed once nothing has changed in them for
# this long. The other two limits bound the time that a start spends on it.
ABANDONED_AFTER_S = 3600.0
MAX_ENTRIES_LOOKED_AT = 5000
MAX_REMOVED_AT_A_START = 25
# How often to make the directory again if its last other user removes it before we have a socket in it.
MAX_TRIES_TO_BIND = 10

_log = get_logger("events")


def find_socket_dir(socket_dir: Path) -> Path:
    """Return `socket_dir`, or a temporary directory if its path is too long for a socket address.
    All processes with the same `socket_dir` get the same directory."""
    if len(os.fsencode(socket_dir)) + 1 + MAX_NAME_BYTES <= MAX_PATH_BYTES:
        return socket_dir
    digest = hashlib.sha256(os.fsencode(socket_dir)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"{_temporary_prefix()}{digest}{TEMPORARY_SUFFIX}"


def remove_abandoned_dirs(parent: Path) -> None:
    """Remove some of this user's socket directories in `parent` that have no living process.

    Safe beside processes that begin to listen: they make their directory again if it is removed.
    """
    removed = 0
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in islice(entries, MAX_ENTRIES_LOOKED_AT):
            if (
                entry.name.startswith(_temporary_prefix())
                and entry.name.endswith(TEMPORARY_SUFFIX)
                and _is_abandoned(Path(entry.path))
            ):
                removed += _remove_socket_dir(Path(entry.path))
                if removed == MAX_REMOVED_AT_A_START:
                    return


def _temporary_prefix() -> str:
    return f"scs-{os.geteuid()}-"


def _is_abandoned(directory: Path) -> bool:
    """Whether the directory is ours, has not changed lately, and holds no socket of a process."""
    with suppress(OSError):
        status = os.lstat(directory)
        return (
            stat.S_ISDIR(status.st_mode)
            and status.st_uid == os.geteuid()
            and status.st_mtime < time.time() - ABANDONED_AFTER_S
            and all(_is_dead(path) for path in directory.glob(f"*{SUFFIX}"))
        )
    return False


def _is_dead(path: Path) -> bool:
    """Whether no process has the socket: a bound one never refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        try:
            sender.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _remove_socket_dir(directory: Path) -> bool:
    with suppress(OSError):  # it holds something else, or another process was faster
        for path in directory.glob(f"*{SUFFIX}"):
            path.unlink()
        directory.rmdir()
        return True
    return False


class WakeupSockets:
    """A WakeupChannel over sockets in one directory. For one loop."""

    def __init__(self, socket_dir: Path, on_wakeup: Callable[[], None]) -> None:
        self._dir = find_socket_dir(socket_dir)
        self._is_temporary = self._dir != socket_dir
        self._has_cleaned_up = not self._is_temporary
        self._on_wakeup = on_wakeup
        self._loop = asyncio.get_running_loop()
        self._receiver: socket.socket | None = None
        self._own_name = ""
        self._sender: socket.socket | None = None
        self._names: tuple[str, ...] = ()
        self._names_of_mtime_ns = -1

    def start_listening(self) -> bool:
        """Listen from now on. Several wake-ups may cause one call of `on_wakeup`. Return False if
        no socket can be made here."""
        name = f"{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            receiver.setblocking(False)
            self._bind(receiver, name)
        except OSError as exc:
            receiver.close()
            _log.warning("no wake-up socket: polling every 20 ms", error=str(exc))
            return False
        self._receiver, self._own_name = receiver, name
        self._loop.add_reader(receiver.fileno(), self._receive)
        if not self._has_cleaned_up:
            self._has_cleaned_up = True
            remove_abandoned_dirs(self._dir.parent)
        return True

    def stop_listening(self) -> None:
        """Stop listening and remove the socket, and a temporary directory with its last socket."""
        if self._receiver is None:
            return
        self._loop.remove_reader(self._receiver.fileno())
        self._receiver.close()
        self._receiver = None
        with suppress(OSError):
            (self._dir / self._own_name).unlink()
        if self._is_temporary:
            with suppress(OSError):  # it is not empty: another process listens
                self._dir.rmdir()
        self._own_name = ""

    def notify(self) -> None:
        """Wake the other listening processes. Never blocks, never raises."""
        for name in self._list_names():
            if name != self._own_name:
                self._wake(self._dir / name)

    def close(self) -> None:
        self.stop_listening()
        if self._sender is not None:
            self._sender.close()
            self._sender = None

    def _bind(self, receiver: socket.socket, name: str) -> None:
        for tries_left in reversed(range(MAX_TRIES_TO_BIND)):
            try:
                self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
                if not self._is_ours(os.lstat(self._dir)):
                    raise PermissionError(f"{self._dir} belongs to another user")
                receiver.bind(str(self._dir / name))
                return
            except (FileExistsError, FileNotFoundError):
                # Both mean: it was removed just now by another process, which was its last user.
                # Or the path belongs to a file.
                if not tries_left:
                    raise

    def _receive(self) -> None:
        if self._receiver is not None:
            with suppress(OSError):  # the socket is empty
                while True:
                    self._receiver.recv(1)
        self._on_wakeup()

    def _list_names(self) -> tuple[str, ...]:
        try:
            status = os.lstat(self._dir)
        except OSError:
            return ()  # no process has listened yet
        if status.st_mtime_ns != self._names_of_mtime_ns:
            if not self._is_ours(status):
                return ()
            with suppress(OSError):
                self._names = tuple(
                    entry.name for entry in os.scandir(self._dir) if entry.name.endswith(SUFFIX)
                )
            is_settled = status.st_mtime_ns < time.time_ns() - MTIME_GRAIN_NS
            self._names_of_mtime_ns = status.st_mtime_ns if is_settled else -1
        return self._names

    def _is_ours(self, status: os.stat_result) -> bool:
        """Whether the directory is ours: anybody can make one among the temporary files."""
        return status.st_uid == os.geteuid()

    def _wake(self, path: Path) -> None:
        if self._sender is None:
            self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._sender.setblocking(False)
        try:
            self._sender.sendto(b"\0", str(path))
        except ConnectionRefusedError:
            # Its process was killed: a bound socket never refuses.
            with suppress(OSError):
                path.unlink()
        except OSError:
            # The socket is full, so its process wakes anyway; or it has just been removed.
            return
