"""Write the search index in a process of its own, while there is much to write.

In the serving process the indexer would share the interpreter with the event loop. The child is a
process like any other of the store: it takes the lock of the index's folder, reads the store and writes. The
kernel prefers the server to it. It ends when little is left to do, and when its standard input
closes, which happens when the server ends, however it ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from typing import NoReturn

from shared_context_server.errors import SharedContextError
from shared_context_server.observability.logs import configure_logs, get_logger
from shared_context_server.search_index.errors import IndexUnusable
from shared_context_server.search_index.folder import IndexFolder
from shared_context_server.services.children import BackOff, read_settings, write_settings
from shared_context_server.services.indexer import Indexer
from shared_context_server.services.pacing import Pacer
from shared_context_server.settings import Settings
from shared_context_server.storage import StorageId, Store, open_storage

NICENESS = 10  # of 0 to 19: where others want a whole core, a tenth of it is left to the child
FAR = 50_000  # messages that it falls behind: then it runs with the server's priority
FAR_CHECK_S = 1.0
FAR_BEHIND = 3  # the exit code that asks for such a child
MUCH = 500  # messages: from there on a process is worth its start of about a second
MUCH_TO_ERASE = 20_000  # messages in an index from which texts are erased
IDLE_S = 15.0  # it ends after so long with less than MUCH to do
POLL_S = 0.25
LOCK_PATIENCE_S = 2.0
STOP_S = 5.0  # until it is killed
# Of the store it reads one thing after the other, everything once, and it writes nothing.
_SMALL_STORE = {
    "sqlite_readers": 1,
    "sqlite_cache_mb": 4,
    "sqlite_mmap_mb": 0,
    "postgres_pool_size": 2,
}
READY = b"ready\n"
GO = b"go\n"

_log = get_logger("search_index")


class IndexProcess:
    """Starts the child for an indexer. `run` is for its thread, the rest for any thread."""

    much = MUCH
    much_to_erase = MUCH_TO_ERASE

    def __init__(self, settings: Settings, expected: StorageId | None) -> None:
        self._settings = settings
        self._expected = expected
        self._lock = threading.Lock()  # so that stop() sees a child that is being started
        self._child: subprocess.Popen[bytes] | None = None
        self._is_stopped = False
        self._is_hurried = False
        self._back_off = BackOff()

    @property
    def is_ready(self) -> bool:
        """Whether a child may be started: not for a while after one has failed."""
        return not self._is_stopped and self._back_off.is_over

    def run(self, release: Callable[[], None]) -> None:
        """Run a child until it ends. `release` is called when it is ready to take the lock."""
        code = None
        try:
            code = self._run(release)
        except OSError as exc:
            _log.warning("the process for the search index cannot be started", error=str(exc))
        self._is_hurried = code == FAR_BEHIND
        if code in (0, FAR_BEHIND):
            self._back_off.reset()
        elif not self._is_stopped:
            _log.warning(
                "the process for the search index failed; the server writes the index itself",
                code=code,
                again_in_s=self._back_off.begin(),
            )

    def stop(self) -> None:
        """Let the child end, and start none any more."""
        with self._lock:
            self._is_stopped = True
            child = self._child
        if child is not None:
            assert child.stdin is not None
            with suppress(OSError, ValueError):  # it has ended
                child.stdin.close()
            killing = threading.Timer(STOP_S, child.kill)
            killing.daemon = True
            killing.start()

    def _run(self, release: Callable[[], None]) -> int:
        with self._lock:
            if self._is_stopped:
                return 0
            self._child = child = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # Ctrl-C stops the server, which then stops the child. It stays in the server's
                # session, in which the kernel compares priorities.
                process_group=0,
                bufsize=0,
            )
        with child:
            assert child.stdin is not None
            assert child.stdout is not None
            if not self._is_hurried and hasattr(os, "setpriority"):
                with suppress(OSError):  # it has ended, or the server has less
                    os.setpriority(os.PRIO_PROCESS, child.pid, NICENESS)
            with suppress(OSError, ValueError):  # it has ended, or is to end
                child.stdin.write(
                    _Request(self._settings, self._expected, self._is_hurried).write()
                )
                if child.stdout.readline() == READY:
                    release()
                    child.stdin.write(GO)
                else:
                    child.stdin.close()
            return child.wait()


@dataclass(frozen=True, slots=True)
class _Request:
    """What the child is told, in one line. `is_hurried`: it is to catch up, and then to end."""

    settings: Settings
    expected: StorageId | None
    is_hurried: bool

    def write(self) -> bytes:
        settings = write_settings(self.settings)
        return json.dumps([settings, self.expected, self.is_hurried]).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> _Request:
        settings, expected, is_hurried = json.loads(line)
        return cls(
            read_settings(settings, **_SMALL_STORE),
            None if expected is None else (expected[0], expected[1]),
            is_hurried,
        )


def main() -> int:
    """Write the index until little is left to do or standard input closes. Return the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = FileIO(sys.stdin.fileno(), closefd=False)
    request = _Request.read(server.readline())
    configure_logs(request.settings)
    try:
        return asyncio.run(_write(request, server))
    except (SharedContextError, IndexUnusable) as exc:
        _log.warning("the search index does not follow the store", error=str(exc))
        return 1


async def _write(request: _Request, server: FileIO) -> int:
    settings = request.settings
    async with open_storage(settings, request.expected) as store:
        folder = IndexFolder.of(settings)
        # It leaves the processor to others by its priority.
        indexer = Indexer(store, folder, pacer=Pacer(idle_rest=0.0, busy_rest=0.0))
        with suppress(BrokenPipeError):  # the server has ended, as the next line sees
            os.write(sys.stdout.fileno(), READY)
        if await asyncio.to_thread(server.readline) != GO:
            return 0
        following = asyncio.ensure_future(_follow(indexer, folder, request))
        _end_with(server, asyncio.get_running_loop(), indexer, following)
        falling = asyncio.ensure_future(_wait_until_far(store, indexer))
        try:
            await asyncio.wait({following, falling}, return_when=asyncio.FIRST_COMPLETED)
            if falling.done() and not request.is_hurried:
                falling.result()
                return FAR_BEHIND
            with suppress(asyncio.CancelledError):
                await following
            return 0
        finally:
            indexer.begin_closing()
            following.cancel()
            falling.cancel()
            await asyncio.wait({following, falling})
            await indexer.aclose()


async def _follow(indexer: Indexer, folder: IndexFolder, request: _Request) -> None:
    """Write the index while there is much to do."""
    patient_until = time.monotonic() + LOCK_PATIENCE_S
    while not folder.lock():
        if time.monotonic() >= patient_until:
            return  # another process was faster
        await asyncio.sleep(0.01)
    await indexer.catch_up()
    while not request.is_hurried:
        counted_from, counted_at = indexer.message_id, time.monotonic()
        while time.monotonic() < counted_at + IDLE_S:
            await asyncio.sleep(POLL_S)
            await indexer.catch_up()
        if indexer.message_id < counted_from + MUCH:
            return


async def _wait_until_far(store: Store, indexer: Indexer) -> None:
    """Return when the index falls far behind: more than FAR, and more than at the beginning."""
    first = None
    while True:
        await asyncio.sleep(FAR_CHECK_S)
        if indexer.is_writing:
            behind = await store.messages.get_newest_id() - indexer.message_id
            first = behind if first is None else first
            if behind > max(FAR, first):
                return


def _end_with(
    server: FileIO,
    loop: asyncio.AbstractEventLoop,
    indexer: Indexer,
    following: asyncio.Future[None],
) -> None:
    """End the work when the server closes standard input or ends."""

    def end() -> None:
        indexer.begin_closing()
        following.cancel()

    def watch() -> NoReturn:
        while server.read(1):
            pass
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(end)
        time.sleep(STOP_S)
        os._exit(1)  # something hangs, and nobody may be left to kill this process

    threading.Thread(target=watch, name="index-process", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
