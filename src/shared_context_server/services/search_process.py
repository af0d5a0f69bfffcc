"""Search in a process of its own, while there is much to search.

In the serving process searches share the interpreter with the event loop, so that everybody waits for
them. The child, services/search_child.py, is a process like any other of the store: it reads the
store and the index. It ends when nothing was searched for a while, and when the socket closes,
which happens when the server ends, however it ends. What it does not answer is searched here.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast

from shared_context_server.background_tasks import BackgroundTasks
from shared_context_server.errors import SharedContextError
from shared_context_server.models import Caller
from shared_context_server.observability.logs import get_logger
from shared_context_server.services.children import BackOff, write_settings
from shared_context_server.services.search_answer import SearchAnswer
from shared_context_server.services.search_request import SearchRequest
from shared_context_server.settings import Settings
from shared_context_server.storage import StorageId

MUCH_S = 0.5  # of searching here: from there on a process is worth its start of about a second
MUCH_SHARE = 0.05  # of the time that passes: searches that take less of it are never much
START_S = 30.0
ANSWER_S = 5.0  # a search itself ends after less than two; all wait for a child that hangs
STOP_S = 5.0  # until it is killed
CHILD = "shared_context_server.services.search_child"
_LENGTH = struct.Struct("!I")

_log = get_logger("search")


async def read_frame(reader: asyncio.StreamReader) -> Any:
    """Return the next object. Raises IncompleteReadError at the end. Both ends are processes of
    this server, so pickle is safe."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return pickle.loads(await reader.readexactly(length))  # noqa: S301 - see above


def write_frame(writer: asyncio.StreamWriter, content: Any) -> None:
    packed = pickle.dumps(content, pickle.HIGHEST_PROTOCOL)
    writer.write(_LENGTH.pack(len(packed)) + packed)


@dataclass(slots=True)
class _Child:
    """A child that answers. `waiting`: the searches that it has not answered."""

    process: subprocess.Popen[bytes]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    waiting: dict[int, asyncio.Future[SearchAnswer | None]] = field(default_factory=dict)

    async def receive(self) -> None:
        """Hand out the answers until the child ends."""
        while True:
            number, answer = await read_frame(self.reader)
            waiting = self.waiting.get(number)
            if waiting is None or waiting.done():
                continue
            if isinstance(answer, SharedContextError):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)

    async def end(self) -> int:
        """Let it end, and return its exit code."""
        for waiting in self.waiting.values():
            if not waiting.done():
                waiting.set_result(None)
        self.writer.close()
        return await asyncio.to_thread(_wait_for, self.process)


class SearchProcess:
    """Starts the child when it is worth it, and asks it. For the tasks of one loop."""

    def __init__(self, settings: Settings, expected: StorageId | None) -> None:
        self._settings = settings
        self._expected = expected
        self._child: _Child | None = None
        self._tasks = BackgroundTasks("search-process")
        self._running: asyncio.Task[None] | None = None
        self._is_closing = False
        self._numbers = count(1)
        self._spent_s = 0.0
        self._counted_at = time.monotonic()
        self._back_off = BackOff()

    @property
    def is_running(self) -> bool:
        """Whether there is a child, or one is being started."""
        return self._running is not None

    @property
    def is_answering(self) -> bool:
        return self._child is not None

    async def search(self, caller: Caller, request: SearchRequest) -> SearchAnswer | None:
        """Return the child's answer; None if there is none. Raises what the search raises."""
        child = self._child
        if child is None:
            return None
        number = next(self._numbers)
        child.waiting[number] = answer = asyncio.get_running_loop().create_future()
        try:
            write_frame(child.writer, (number, caller, request))
            async with asyncio.timeout(ANSWER_S):
                return cast("SearchAnswer | None", await answer)
        except TimeoutError:
            _log.warning("the process for searches does not answer; it is ended")
            child.process.kill()
            return None
        finally:
            del child.waiting[number]
            if answer.cancelled() and not child.writer.is_closing():
                write_frame(child.writer, (number, None, None))

    @contextmanager
    def count_time(self) -> Iterator[None]:
        """Count the time of a search in this process. If searches take much, the child is started."""
        started = time.monotonic()
        try:
            yield
        finally:
            now = time.monotonic()
            rest_s = MUCH_SHARE * (now - self._counted_at)
            self._spent_s = max(0.0, self._spent_s - rest_s) + now - started
            self._counted_at = now
            may_start = not self._is_closing and self._back_off.is_over
            if self._spent_s >= MUCH_S and self._running is None and may_start:
                self._spent_s = 0.0
                self._running = self._tasks.start(self._run())

    def begin_closing(self) -> None:
        """Start no child any more, and search here what the present one has not answered: a shutdown
        does not wait for a child that hangs."""
        self._is_closing = True
        if self._child is not None:
            self._child.process.kill()

    async def aclose(self) -> None:
        """Let the child end. To be called when nobody searches any more."""
        if self._running is not None:
            self._running.cancel()
        await self._tasks.wait()

    async def _run(self) -> None:
        """Start a child and hand out its answers until it ends."""
        code = None
        try:
            code = await self._serve(await self._start())
        except OSError as exc:
            _log.warning("the process for searches cannot be started", error=str(exc))
        finally:
            self._running = None
        if code == 0 or self._is_closing:
            self._back_off.reset()
            return
        _log.warning(
            "the process for searches failed; the server searches itself",
            code=code,
            again_in_s=self._back_off.begin(),
        )

    async def _serve(self, child: _Child) -> int:
        """Hand out the child's answers until it ends; return its exit code."""
        try:
            async with asyncio.timeout(START_S):
                await read_frame(child.reader)  # it is ready
            self._child = child
            await child.receive()
        except (TimeoutError, asyncio.IncompleteReadError, OSError):
            pass  # its exit code tells
        finally:
            self._child = None
            code = await child.end()
        return code

    async def _start(self) -> _Child:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.to_thread(_start, theirs)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        write_frame(writer, (write_settings(self._settings), self._expected))
        return _Child(process, reader, writer)


def _start(theirs: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", CHILD],
        stdin=theirs.fileno(),
        stdout=subprocess.DEVNULL,
        process_group=0,  # Ctrl-C stops the server, which then stops the child
    )


def _wait_for(process: subprocess.Popen[bytes]) -> int:
    with suppress(subprocess.TimeoutExpired):
        return process.wait(STOP_S)
    process.kill()
    return process.wait()
