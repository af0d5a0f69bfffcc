"""Wake other processes of this host by datagram sockets. Whoever listens has a socket in a directory
that all know, and whoever has committed something sends a byte to each. What it was is not said.
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
# A directory's time has the grain of the kernel's tick. What was listed sooner than this after a
# change may lack a later change of the same tick.
MTIME_GRAIN_NS = 50_000_000

_log = get_logger("events")


def doorbell_dir(meeting_dir: Path) -> Path:
    """The directory of the sockets: `meeting_dir`, or where its path is too long for a socket's
    address, one among the temporary files, the same for all who have the same meeting_dir."""
    if len(os.fsencode(meeting_dir)) + 1 + MAX_NAME_BYTES <= MAX_PATH_BYTES:
        return meeting_dir
    digest = hashlib.sha256(os.fsencode(meeting_dir)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"scs-{os.geteuid()}-{digest}.bus"


class Doorbells:
    """The bell of this process, while it listens, and those of the others. For one loop."""

    def __init__(self, meeting_dir: Path, on_ring: Callable[[], None]) -> None:
        self._dir = doorbell_dir(meeting_dir)
        self._on_ring = on_ring
        self._loop = asyncio.get_running_loop()
        self._receiver: socket.socket | None = None
        self._own_name = ""
        self._sender: socket.socket | None = None
        self._names: tuple[str, ...] = ()
        self._names_of_mtime_ns = -1

    def start_listening(self) -> bool:
        """Listen from now on: `on_ring` is called after others have rung, once for any number.
        False if there can be no socket here."""
        name = f"{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            receiver.setblocking(False)
            self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_ours(os.lstat(self._dir)):
                raise PermissionError(f"{self._dir} belongs to somebody else")
            receiver.bind(str(self._dir / name))
        except OSError as exc:
            receiver.close()
            _log.warning("no wake-up socket: looking for news every 20 ms", error=str(exc))
            return False
        self._receiver, self._own_name = receiver, name
        self._loop.add_reader(receiver.fileno(), self._hear)
        return True

    def stop_listening(self) -> None:
        """Stop listening, and leave nothing behind."""
        if self._receiver is None:
            return
        self._loop.remove_reader(self._receiver.fileno())
        self._receiver.close()
        self._receiver = None
        with suppress(OSError):
            (self._dir / self._own_name).unlink()
        self._own_name = ""

    def ring(self) -> None:
        """Wake the others who listen. Never blocks, never raises."""
        for name in self._list_names():
            if name != self._own_name:
                self._ring_at(self._dir / name)

    def close(self) -> None:
        self.stop_listening()
        if self._sender is not None:
            self._sender.close()
            self._sender = None

    def _hear(self) -> None:
        if self._receiver is not None:
            with suppress(OSError):  # there is no more; or there was a false alarm
                while True:
                    self._receiver.recv(1)
        self._on_ring()

    def _list_names(self) -> tuple[str, ...]:
        try:
            status = os.lstat(self._dir)
        except OSError:
            return ()  # nobody has ever listened
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
        """Among the temporary files anybody could have put something in our way."""
        return status.st_uid == os.geteuid()

    def _ring_at(self, path: Path) -> None:
        if self._sender is None:
            self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._sender.setblocking(False)
        try:
            self._sender.sendto(b"\0", str(path))
        except ConnectionRefusedError:
            # Its process was killed: a socket that is bound is never refused.
            with suppress(OSError):
                path.unlink()
        except OSError:
            # It is full, so its process is going to wake anyway; or it has just been taken down.
            return
