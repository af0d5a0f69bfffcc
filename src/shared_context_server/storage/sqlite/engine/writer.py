"""The writer: one thread per process that runs all writes and commits many at once.

Operations wait in a queue while a batch is committed, and then share the next commit. So the cost
of a commit is shared by more operations under load.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from shared_context_server.errors import SharedContextError, Unavailable
from shared_context_server.storage.sqlite.engine.connections import optimize
from shared_context_server.storage.sqlite.engine.failures import (
    is_locked,
    storage_error,
    too_late,
    wrap_error,
)
from shared_context_server.storage.sqlite.engine.opened_file import OpenedFile

T = TypeVar("T")

MAX_BATCH = 256  # operations in one commit; limits how long the first waits for the last
MAX_QUEUED = 10_000  # operations; more are refused at once
WAIT_S = 10.0  # how long an operation may take, from `run` to its answer
LOCK_WAIT_S = 5.0  # and how long it may wait for another process's lock
_LOCK_WAIT_GRAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class WriterStats:
    """Counters since the start, and the current state."""

    queue_depth: int
    batches: int
    operations: int
    last_batch_size: int


@dataclass(slots=True, eq=False)
class _Operation:
    function: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    queued_at: float

    def expire(self) -> None:
        """Give up the operation. It is left out if it has not begun."""
        if not self.future.done():
            self.future.set_exception(too_late())


@dataclass(slots=True, eq=False)
class _Outcome:
    future: asyncio.Future[Any]
    value: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        if self.future.done():  # its caller was cancelled
            return
        if self.error is None:
            self.future.set_result(self.value)
        else:
            self.future.set_exception(self.error)


class Writer:
    """Runs functions on the write connection, one after the other, in the order of `run`.

    A function may be run a second time after its changes were rolled back. For the loop that opened
    it.

    If a function raises, only its own changes are rolled back, and its caller gets the error. The
    others of the batch are committed. All operations of a batch raise Unavailable if the commit
    fails or the `file` is not in place. So does one that did not get the lock within `lock_wait_s`,
    or has no result within `wait_s`.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        file: OpenedFile | None = None,
        *,
        wait_s: float = WAIT_S,
        lock_wait_s: float = LOCK_WAIT_S,
    ) -> None:
        self._connect = connect
        self._file = file
        self._wait_s = wait_s
        self._lock_wait_s = lock_wait_s
        self._lock_wait_ms = -1  # the present setting of the connection
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()  # None: stop
        self._gathered: list[_Operation] = []
        self._unanswered: deque[_Operation] = (
            deque()
        )  # in the order of `run`, from the oldest unsettled one
        self._expiry: asyncio.TimerHandle | None = None
        self._is_closing = False
        self._batches = 0
        self._operations = 0
        self._last_batch_size = 0
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        # A daemon, so that a program that ends without closing does not hang. Writes cut off that
        # way were not acknowledged, and SQLite recovers as from a killed process.
        self._thread = threading.Thread(target=self._serve, name="sqlite-writer", daemon=True)

    async def start(self) -> None:
        """Open the connection in the thread. Raises what `connect` raises."""
        self._thread.start()
        await self._started

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Return the function's result once it is committed. A cancelled caller's operation is left
        out if it still waits; otherwise it is committed wholly or not at all."""
        if self._is_closing:
            raise Unavailable("The storage is closed.")
        if self._queue.qsize() + len(self._gathered) >= MAX_QUEUED:
            raise Unavailable("Too many writes are waiting for the storage.")
        future: asyncio.Future[T] = self._loop.create_future()
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        operation = _Operation(function, future, time.monotonic())
        self._gathered.append(operation)
        self._unanswered.append(operation)
        if self._expiry is None:
            self._expiry = self._loop.call_later(self._wait_s, self._expire)
        return await future

    def _expire(self) -> None:
        """Fail the operations that have waited too long. One timer is enough, because all wait
        equally long."""
        self._expiry = None
        oldest_at = time.monotonic() - self._wait_s
        while self._unanswered and self._unanswered[0].queued_at <= oldest_at:
            self._unanswered.popleft().expire()
        if self._unanswered:
            wait_s = self._unanswered[0].queued_at - oldest_at
            self._expiry = self._loop.call_later(wait_s, self._expire)

    def _settle_all(self, outcomes: list[_Outcome]) -> None:
        for outcome in outcomes:
            outcome.settle()
        while self._unanswered and self._unanswered[0].future.done():
            self._unanswered.popleft()

    def _hand_over(self) -> None:
        """Wake the thread once for all writes of a turn of the loop, so that they share a commit."""
        for operation in self._gathered:
            self._queue.put(operation)
        self._gathered.clear()

    async def aclose(self) -> None:
        """Finish the queue, then close the connection and end the thread. A thread whose disk does
        not answer is abandoned."""
        if not self._is_closing:
            self._is_closing = True
            self._hand_over()
            self._queue.put(None)
        await asyncio.wait([self._stopped], timeout=self._wait_s)
        if self._expiry is not None:
            self._expiry.cancel()

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
                outcomes = self._commit(connection, batch)
                self._count(batch)
                self._settle(outcomes)
        self._close(connection)
        self._settle([_Outcome(self._stopped)])

    def _next_batch(self) -> tuple[list[_Operation], bool]:
        """Return the waiting operations, at least one, and True if it is the last batch."""
        batch: list[_Operation] = []
        operation = self._queue.get()
        try:
            while operation is not None:
                if not operation.future.done():  # cancelled or expired
                    batch.append(operation)
                if len(batch) == MAX_BATCH:
                    return batch, False
                operation = self._queue.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def _commit(self, connection: sqlite3.Connection, batch: list[_Operation]) -> list[_Outcome]:
        outcomes: list[_Outcome] = []
        try:
            self._require_file()
            outcomes += self._begin(connection, batch)
            if not batch:
                return outcomes
            committed = _commit_together(connection, batch)
            # Check again: a result means that the write is in the file at this path.
            self._require_file()
        except (sqlite3.Error, SharedContextError) as exc:
            _roll_back(connection)
            return outcomes + _refuse(batch, exc)
        return outcomes + committed

    def _begin(self, connection: sqlite3.Connection, batch: list[_Operation]) -> list[_Outcome]:
        """Begin the transaction. Remove and return the operations that have waited too long for the
        lock. When none is left, no transaction was begun."""
        late: list[_Outcome] = []
        while batch:
            waited_s = time.monotonic() - batch[0].queued_at
            try:
                self._set_lock_wait(connection, self._lock_wait_s - waited_s)
                connection.execute("BEGIN IMMEDIATE")
                break
            except sqlite3.Error as exc:
                now = time.monotonic()
                count = sum(
                    now - o.queued_at + _LOCK_WAIT_GRAIN_S >= self._lock_wait_s for o in batch
                )
                if not is_locked(exc) or count == 0:
                    late += _refuse(batch, exc)
                    batch.clear()
                else:
                    late += _refuse(batch[:count], exc)
                    del batch[:count]
        return late

    def _set_lock_wait(self, connection: sqlite3.Connection, wait_s: float) -> None:
        """Set the time-out in steps, so that it is seldom set."""
        steps = max(0, math.ceil(wait_s / _LOCK_WAIT_GRAIN_S))
        wait_ms = round(steps * _LOCK_WAIT_GRAIN_S * 1000)
        if wait_ms != self._lock_wait_ms:
            connection.execute(f"PRAGMA busy_timeout = {wait_ms}")
            self._lock_wait_ms = wait_ms

    def _require_file(self) -> None:
        if self._file is not None:
            self._file.require_in_place(at_once=True)

    def _close(self, connection: sqlite3.Connection) -> None:
        try:
            self._require_file()
            optimize(connection)
        except (sqlite3.Error, SharedContextError):
            pass  # there is nothing to optimize, and its reason was told
        if self._file is not None:
            self._file.close()
        with contextlib.suppress(sqlite3.Error):
            connection.close()

    def _settle(self, outcomes: list[_Outcome]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._settle_all, outcomes)
        except RuntimeError:
            # The loop is closed, so nobody waits. The thread continues to its end.
            return

    def _count(self, batch: list[_Operation]) -> None:
        self._batches += 1
        self._operations += len(batch)
        self._last_batch_size = len(batch)


def _commit_together(connection: sqlite3.Connection, batch: list[_Operation]) -> list[_Outcome]:
    """Run the operations in the transaction that has begun, and commit it. Raises sqlite3.Error."""
    try:
        outcomes = [_attempt(connection, operation) for operation in batch]
    except _HalfDoneError:
        _roll_back(connection)  # a full disk has rolled back already
        connection.execute("BEGIN IMMEDIATE")
        outcomes = [_attempt_undoably(connection, operation) for operation in batch]
    connection.execute("COMMIT")
    return outcomes


def _refuse(batch: list[_Operation], exc: BaseException) -> list[_Outcome]:
    # One error each, because every caller adds its own traceback.
    if isinstance(exc, SharedContextError):
        return [_Outcome(o.future, error=Unavailable(exc.message)) for o in batch]
    return [_Outcome(operation.future, error=storage_error(exc)) for operation in batch]


def _roll_back(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):  # the reason of the rollback is reported already
        if connection.in_transaction:
            connection.execute("ROLLBACK")


class _HalfDoneError(Exception):
    """An operation failed after it had written something, and there is no savepoint to return to."""


def _attempt(connection: sqlite3.Connection, operation: _Operation) -> _Outcome:
    """Run an operation without a savepoint.

    Most operations that fail do so before they write, so there is nothing to undo. Savepoints would
    cost two more statements for each operation, and at each statement the threads compete for the
    interpreter. So a batch is first tried without them.
    """
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
