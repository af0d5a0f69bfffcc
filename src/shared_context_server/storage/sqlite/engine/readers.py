"""A pool of read connections: runs reads as functions in the threads of aiosqlite connections.

A caller puts its read into a queue. Reader tasks, which nobody cancels, each hold a connection of
the pool and let its thread take reads from the queue until it is empty. So a read costs one thread
hop at most.

Callers do not use the pool themselves for two reasons. A caller that is cancelled while it holds a
connection, or waits for one, would keep the slot for ever. And acquiring and releasing cost three
to nine times what a read does: 100 to 175 µs of processor time, against 13 to 30 µs through a
reader task (one SELECT on a warm file, one and twenty callers). A reader task closes its connection
before it returns it, because a connection that fails inside the pool keeps its slot too.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sqlite3
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import aiosqlite
from aiosqlitepool import (  # type: ignore[import-untyped]  # carries no type marker
    PoolClosedError,
    PoolConnectionAcquireTimeoutError,
    SQLiteConnectionPool,
)

from shared_context_server.errors import SharedContextError, Unavailable
from shared_context_server.storage.sqlite.engine.connections import read_snapshot
from shared_context_server.storage.sqlite.engine.failures import storage_error, too_late, wrap_error
from shared_context_server.storage.sqlite.engine.function_connection import (
    is_open,
    open_function_connection,
    run_function,
)
from shared_context_server.storage.sqlite.engine.opened_file import OpenedFile

T = TypeVar("T")

WAIT_S = 10.0  # how long a read may take, from `run` to its answer
READER_TASK_NAME = "sqlite-reader"  # of the tasks, as a debugger shows them
MAX_WAITING = 10_000  # reads; more are refused at once

# Errors of opening a connection: from SQLite, the system (descriptors, threads), the
# pool, and ours for a file that is not in place.
_OPEN_ERRORS = (
    sqlite3.Error,
    SharedContextError,
    OSError,
    RuntimeError,
    PoolClosedError,
    PoolConnectionAcquireTimeoutError,
)


@dataclass(slots=True, eq=False)
class _Read:
    function: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    connection: sqlite3.Connection | None = None  # on which it runs just now
    value: Any = None
    error: BaseException | None = None

    def run(self, connection: sqlite3.Connection, file: OpenedFile | None) -> None:
        """Run in a connection's thread. sqlite3.Error means that the connection must not be used
        again."""
        self.connection = connection
        try:
            if file is not None:
                file.require_in_place(at_once=False)
            self.value = read_snapshot(connection, self.function)
        except sqlite3.Error as exc:
            self.error = wrap_error(exc)
            raise
        except Exception as exc:  # noqa: BLE001 - it belongs to the caller, not to the task
            self.error = exc
        finally:
            self.connection = None

    def settle(self) -> None:
        if self.future.done():  # its caller was cancelled, or got a time-out
            return
        if self.error is None:
            self.future.set_result(self.value)
        else:
            self.future.set_exception(self.error)

    def expire(self) -> None:
        """Give up the read. The connection is freed from it as soon as possible."""
        if self.future.done():
            return
        self.future.set_exception(too_late())
        connection = self.connection
        if connection is not None:
            with contextlib.suppress(sqlite3.ProgrammingError):  # just closed
                connection.interrupt()


class Readers:
    """Runs functions on read connections, at most `size` at a time, in the order of `run`.

    All statements of a function read one snapshot. Connections are opened on first use. For one
    event loop.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        size: int,
        file: OpenedFile | None = None,
        *,
        wait_s: float = WAIT_S,
    ) -> None:
        self._file = file
        self._size = size
        self._wait_s = wait_s
        # Both are used by the loop and by the threads: appending and popping are atomic.
        self._waiting: deque[_Read] = deque()
        self._finished: deque[_Read] = deque()
        self._is_settling = False  # a call of _settle is scheduled
        self._tasks: set[asyncio.Task[None]] = (
            set()
        )  # the references keep tasks from being collected
        self._parked: list[asyncio.Future[None]] = []  # one of each task that has nothing to do
        self._is_closing = False
        # There are as many tasks as slots, so none ever waits inside the pool.
        self._pool = SQLiteConnectionPool(
            partial(open_function_connection, connect), pool_size=size
        )

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Return the function's result. Raises what it raises, with sqlite3.Error wrapped, and
        Unavailable if the result is not there in time. A cancelled caller's read is skipped or its
        result dropped."""
        if self._is_closing:
            raise Unavailable("The storage is closed.")
        if len(self._waiting) >= MAX_WAITING:
            raise Unavailable("Too many reads are waiting for the storage.")
        loop = asyncio.get_running_loop()
        read = _Read(function, loop.create_future())
        self._waiting.append(read)
        # Else a task has finished its reads, and looks here again before it parks.
        if not self._wake_task() and len(self._tasks) < self._size:
            self._start_task()
        expiry = loop.call_later(self._wait_s, read.expire)
        try:
            result: T = await read.future
        finally:
            expiry.cancel()
        return result

    async def aclose(self) -> None:
        """Finish the reads in progress, then close the connections. Those whose disk does not
        answer are abandoned."""
        self._is_closing = True
        while self._wake_task():
            pass
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._wait_s)
        await asyncio.wait([asyncio.ensure_future(self._pool.close())], timeout=self._wait_s)

    def _wake_task(self) -> bool:
        """Whether there was a parked task."""
        while self._parked:
            wake = self._parked.pop()
            if not wake.done():  # else the loop is shutting down and has cancelled the task
                wake.set_result(None)
                return True
        return False

    def _start_task(self) -> None:
        # An empty context, because a task serves many callers and must not log in the name of the first.
        task = asyncio.create_task(
            self._run_task(), name=READER_TASK_NAME, context=contextvars.Context()
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_task(self) -> None:
        while await self._has_work():
            try:
                async with self._pool.connection() as connection:
                    try:
                        await self._serve(connection)
                    finally:
                        await connection.close()
            except _OPEN_ERRORS as exc:
                # One read gets the error; for the next one a connection may open again.
                self._fail_one(storage_error(exc))

    async def _has_work(self) -> bool:
        """Wait for a read and return True; return False when closing."""
        while not self._waiting:
            if self._is_closing:
                return False
            wake = asyncio.get_running_loop().create_future()
            self._parked.append(wake)
            await wake
        return True

    async def _serve(self, connection: aiosqlite.Connection) -> None:
        """Let the connection's thread work, until closing or until the connection has failed."""
        while (self._waiting or await self._has_work()) and is_open(connection):
            try:
                await run_function(connection, self._work)
            except sqlite3.Error:
                return  # its caller gets the error
            finally:
                self._settle()

    def _fail_one(self, error: SharedContextError) -> None:
        with contextlib.suppress(IndexError):  # another thread may have taken it
            read = self._waiting.popleft()
            read.error = error
            read.settle()

    def _settle(self) -> None:
        self._is_settling = False  # first, so that a read that finishes from now on schedules again
        while self._finished:
            self._finished.popleft().settle()

    def _work(self, connection: sqlite3.Connection) -> None:
        """Run reads in a connection's thread until none waits. Raises sqlite3.Error."""
        while True:
            try:
                read = self._waiting.popleft()
            except IndexError:
                return
            if read.future.done():  # cancelled or expired
                continue
            try:
                read.run(connection, self._file)
            finally:
                self._finished.append(read)
            if not self._waiting:
                return  # the task settles it
            if not self._is_settling:
                self._is_settling = True
                read.future.get_loop().call_soon_threadsafe(self._settle)
