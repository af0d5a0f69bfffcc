"""The one thread of the process that writes.

Operations queue up while a batch is being committed and then share the next commit, so that its
cost is paid once for all of them: the busier, the cheaper.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from shared_context_server.errors import Unavailable
from shared_context_server.storage.sqlite.connections import optimize
from shared_context_server.storage.sqlite.failures import unavailable, wrap_error

T = TypeVar("T")

MAX_BATCH = 256  # operations a commit; bounds how long the first of them waits for the last
MAX_QUEUED = 10_000  # operations; more than that is refused at once instead of growing for ever


@dataclass(frozen=True, slots=True)
class WriterStats:
    """Counters since the start, and the state now."""

    queue_depth: int
    batches: int
    operations: int
    last_batch_size: int


@dataclass(frozen=True, slots=True, eq=False)
class _Operation:
    function: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Outcome:
    future: asyncio.Future[Any]
    value: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        if self.future.done():  # its caller was cancelled meanwhile
            return
        if self.error is None:
            self.future.set_result(self.value)
        else:
            self.future.set_exception(self.error)


class Writer:
    """Runs functions on the write connection, one after the other, in the order of `run`.

    A function may be run a second time, after what it did has been undone.

    Belongs to the loop that opened it. What a function raises undoes that function's changes only
    and goes to its caller; its neighbours in the batch are committed. If the commit itself fails,
    or the lock cannot be had in time, every operation of the batch raises Unavailable.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()  # None: stop
        self._gathered: list[_Operation] = []
        self._is_closing = False
        self._batches = 0
        self._operations = 0
        self._last_batch_size = 0
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        # A daemon: a program that ends without closing must not hang. What that cuts off has not
        # been acknowledged, and SQLite recovers from it as from a killed process.
        self._thread = threading.Thread(target=self._serve, name="sqlite-writer", daemon=True)

    async def start(self) -> None:
        """Open the connection in the thread. Raises what `connect` raises."""
        self._thread.start()
        await self._started

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """The function's result, once it is committed. A caller that is cancelled while the
        operation still waits takes it back; later it will be committed or not, wholly.
        """
        if self._is_closing:
            raise Unavailable("The storage is closed.")
        if self._queue.qsize() + len(self._gathered) >= MAX_QUEUED:
            raise Unavailable("Too many writes are waiting for the storage.")
        future: asyncio.Future[T] = self._loop.create_future()
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(_Operation(function, future))
        return await future

    def _hand_over(self) -> None:
        """Once a turn of the loop: one wake-up of the thread, and a commit, for all of its writes."""
        for operation in self._gathered:
            self._queue.put(operation)
        self._gathered.clear()

    async def aclose(self) -> None:
        """Finish what is queued, then close the connection and end the thread."""
        if not self._is_closing:
            self._is_closing = True
            self._hand_over()
            self._queue.put(None)
        await asyncio.shield(self._stopped)

    def stats(self) -> WriterStats:
        return WriterStats(
            queue_depth=self._queue.qsize() + len(self._gathered),
            batches=self._batches,
            operations=self._operations,
            last_batch_size=self._last_batch_size,
        )

    # In the thread

    def _serve(self) -> None:
        try:
            connection = self._connect()
        except BaseException as exc:  # noqa: BLE001 - start() raises it
            self._settle([_Outcome(self._started, error=exc), _Outcome(self._stopped)])
            return
        self._settle([_Outcome(self._started)])
        is_stopping = False
        while not is_stopping:
            batch, is_stopping = self._next_batch()
            if batch:
                outcomes = _commit_together(connection, batch)
                self._count(batch)
                self._settle(outcomes)
        optimize(connection)
        connection.close()
        self._settle([_Outcome(self._stopped)])

    def _next_batch(self) -> tuple[list[_Operation], bool]:
        """What is waiting, at least one; True when it is the last."""
        batch: list[_Operation] = []
        operation = self._queue.get()
        try:
            while operation is not None:
                if not operation.future.cancelled():
                    batch.append(operation)
                if len(batch) == MAX_BATCH:
                    return batch, False
                operation = self._queue.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def _settle(self, outcomes: list[_Outcome]) -> None:
        try:
            self._loop.call_soon_threadsafe(_settle_all, outcomes)
        except RuntimeError:
            # The loop is closed: nobody waits any more, and the thread goes on to its end.
            return

    def _count(self, batch: list[_Operation]) -> None:
        self._batches += 1
        self._operations += len(batch)
        self._last_batch_size = len(batch)


def _settle_all(outcomes: list[_Outcome]) -> None:
    for outcome in outcomes:
        outcome.settle()


def _commit_together(connection: sqlite3.Connection, batch: list[_Operation]) -> list[_Outcome]:
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            outcomes = [_attempt(connection, operation) for operation in batch]
        except _HalfDoneError:
            _roll_back(connection)  # a full disk has done so already
            connection.execute("BEGIN IMMEDIATE")
            outcomes = [_attempt_undoably(connection, operation) for operation in batch]
        connection.execute("COMMIT")
    except sqlite3.Error as exc:
        _roll_back(connection)
        # One error each: their callers add tracebacks of their own.
        return [_Outcome(operation.future, error=unavailable(exc)) for operation in batch]
    return outcomes


def _roll_back(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):  # the reason to roll back is reported already
        if connection.in_transaction:
            connection.execute("ROLLBACK")


class _HalfDoneError(Exception):
    """An operation failed after it had written something, and there is no savepoint to go back to."""


def _attempt(connection: sqlite3.Connection, operation: _Operation) -> _Outcome:
    """Most operations that fail do so before they write, and then there is nothing to undo. So the
    batch is tried without savepoints first, each of which would cost two more statements, and at
    each statement the threads of the process contend for the interpreter."""
    changes = connection.total_changes
    try:
        value = operation.function(connection)
    except Exception as exc:
        if isinstance(exc, sqlite3.Error) or connection.total_changes != changes:
            raise _HalfDoneError from exc
        return _Outcome(operation.future, error=exc)
    return _Outcome(operation.future, value=value)


def _attempt_undoably(connection: sqlite3.Connection, operation: _Operation) -> _Outcome:
    connection.execute("SAVEPOINT operation")
    try:
        value = operation.function(connection)
    except BaseException as exc:
        if not connection.in_transaction and isinstance(exc, sqlite3.Error):
            raise  # a full disk or an I/O error: SQLite has rolled back the whole batch
        connection.execute("ROLLBACK TO operation")
        connection.execute("RELEASE operation")
        error = wrap_error(exc) if isinstance(exc, sqlite3.Error) else exc
        return _Outcome(operation.future, error=error)
    connection.execute("RELEASE operation")
    return _Outcome(operation.future, value=value)
