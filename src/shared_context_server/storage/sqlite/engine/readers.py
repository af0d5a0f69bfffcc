"""The pool of read connections: reads run as functions in the threads of aiosqlite's connections.

A caller queues its read. Reader tasks, tasks that nobody cancels, each hold a connection of the pool and let
its thread take reads off the queue until there are none: at most one thread hop for a read. Callers do
not touch the pool, because one that is cancelled while it holds a connection, or waits for one, takes
the slot with it, and because acquiring and releasing cost three to nine times what a read does: 100 to
175 µs of processor time a read, against 13 to 30 µs through a task (one SELECT on a warm file, one and
twenty callers). A task closes its connection before it gives it back, because one that dies in the pool
takes its slot with it too.
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
MAX_WAITING = 10_000  # reads; more than that is refused at once instead of growing for ever

# What opening a connection can raise: SQLite's errors, the system's (descriptors, threads), the
# pool's, and ours of a file that is not in place.
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
        """In the thread of a connection, which is used up when sqlite3.Error is raised."""
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
        if self.future.done():  # its caller was cancelled, or told that it had waited too long
            return
        if self.error is None:
            self.future.set_result(self.value)
        else:
            self.future.set_exception(self.error)

    def expire(self) -> None:
        """Its caller waits no longer, and the connection is freed from it as soon as it can be."""
        if self.future.done():
            return
        self.future.set_exception(too_late())
        connection = self.connection
        if connection is not None:
            with contextlib.suppress(sqlite3.ProgrammingError):  # just closed
                connection.interrupt()


class Readers:
    """Runs functions on read connections, as many at a time as the pool is large, in the order of
    `run`. All statements of a function read one snapshot. Connections are opened when first
    needed. Belongs to the loop that uses it.
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
        self._is_settling = False  # the loop has been asked to settle what is finished
        self._tasks: set[asyncio.Task[None]] = set()  # a task nobody refers to may be collected
        self._parked: list[asyncio.Future[None]] = []  # one of each task that has nothing to do
        self._is_closing = False
        # There are as many tasks as slots, so none ever waits inside the pool.
        self._pool = SQLiteConnectionPool(
            partial(open_function_connection, connect), pool_size=size
        )

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """The function's result. Raises what it raises, sqlite3.Error wrapped, and Unavailable if it
        is not there in time. A cancelled caller's read is skipped, or finished for nobody.
        """
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
        """Finish the reads under way, then close the connections; those whose disk does not answer are
        left behind."""
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
        # An empty context: a task serves many callers and must not log as the first of them.
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
                # One read is told; the next may find that a connection can be opened again.
                self._fail_one(storage_error(exc))

    async def _has_work(self) -> bool:
        """Wait until a read waits: True; or until closing: False."""
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
                return  # its caller is told
            finally:
                self._settle()

    def _fail_one(self, error: SharedContextError) -> None:
        with contextlib.suppress(IndexError):  # a thread may have been quicker
            read = self._waiting.popleft()
            read.error = error
            read.settle()

    def _settle(self) -> None:
        self._is_settling = False  # first: what is finished from now on asks again
        while self._finished:
            self._finished.popleft().settle()

    def _work(self, connection: sqlite3.Connection) -> None:
        """Reads, in a connection's thread, until none waits. Raises sqlite3.Error."""
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
