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
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from shared_context_server.observability.logs import get_logger

MAX_PATH_BYTES = 100  # of a socket's address: 104 to 108, depending on the system
MAX_NAME_BYTES = 32
SUFFIX = ".sock"
# A directory's mtime has the resolution of the kernel's tick. A listing made sooner than this after a
# change may lack a later change of the same tick.
MTIME_GRAIN_NS = 50_000_000

_log = get_logger("events")


def find_socket_dir(socket_dir: Path) -> Path:
    """Return `socket_dir`, or a temporary directory if its path is too long for a socket address.
    All processes with the same `socket_dir` get the same directory."""
    if len(os.fsencode(socket_dir)) + 1 + MAX_NAME_BYTES <= MAX_PATH_BYTES:
        return socket_dir
    digest = hashlib.sha256(os.fsencode(socket_dir)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"scs-{os.geteuid()}-{digest}.bus"


class WakeupSockets:
    """A WakeupChannel over sockets in one directory. For one loop."""

    def __init__(self, socket_dir: Path, on_wakeup: Callable[[], None]) -> None:
        self._dir = find_socket_dir(socket_dir)
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
            self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_ours(os.lstat(self._dir)):
                raise PermissionError(f"{self._dir} belongs to another user")
            receiver.bind(str(self._dir / name))
        except OSError as exc:
            receiver.close()
            _log.warning("no wake-up socket: polling every 20 ms", error=str(exc))
            return False
        self._receiver, self._own_name = receiver, name
        self._loop.add_reader(receiver.fileno(), self._receive)
        return True

    def stop_listening(self) -> None:
        """Stop listening and remove the socket."""
        if self._receiver is None:
            return
        self._loop.remove_reader(self._receiver.fileno())
        self._receiver.close()
        self._receiver = None
        with suppress(OSError):
            (self._dir / self._own_name).unlink()
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
