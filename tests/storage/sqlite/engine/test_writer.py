"""The writer thread: batches, savepoints, failures, cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from shared_context_server.errors import InternalError, Unavailable
from shared_context_server.settings import Settings
from shared_context_server.storage.sqlite.engine.connections import open_connection
from shared_context_server.storage.sqlite.engine.writer import MAX_BATCH, MAX_QUEUED, Writer
from tests.storage.sqlite.conftest import Connect

PATIENCE_S = 30  # a test that waits longer than this has failed

Operation = Callable[[sqlite3.Connection], object]


@pytest.fixture
async def writer(open_writer: Connect) -> AsyncIterator[Writer]:
    async with running(open_writer) as writer:
        await writer.run(lambda connection: connection.execute("CREATE TABLE log (entry)"))
        yield writer


@contextlib.asynccontextmanager
async def running(connect: Connect) -> AsyncIterator[Writer]:
    writer = Writer(connect)
    await writer.start()
    try:
        yield writer
    finally:
        await writer.aclose()


def insert(entry: object) -> Operation:
    return lambda connection: connection.execute("INSERT INTO log VALUES (?)", (entry,)).lastrowid


def fail(error: BaseException, *, after: Operation) -> Operation:
    def operation(connection: sqlite3.Connection) -> None:
        after(connection)
        raise error

    return operation


def entries(connection: sqlite3.Connection) -> list[object]:
    return [row[0] for row in connection.execute("SELECT entry FROM log ORDER BY rowid")]


@contextlib.asynccontextmanager
async def held(writer: Writer) -> AsyncIterator[None]:
    """The thread is at work on a batch of its own, so that what is queued within waits."""
    begun, release = threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> None:
        begun.set()
        release.wait(PATIENCE_S)

    task = asyncio.ensure_future(writer.run(hold))
    await asyncio.sleep(0)
    await asyncio.to_thread(begun.wait, PATIENCE_S)
    try:
        yield
    finally:
        release.set()
        await task


async def queue_all(writer: Writer, operations: list[Operation]) -> list[asyncio.Task[object]]:
    """In this order."""
    tasks = [asyncio.ensure_future(writer.run(operation)) for operation in operations]
    await asyncio.sleep(0)
    return tasks


async def test_a_result_comes_back_after_its_commit(
    writer: Writer, outsider: sqlite3.Connection
) -> None:
    assert await writer.run(insert("a")) == 1
    assert entries(outsider) == ["a"]


async def test_what_waits_together_is_committed_together(
    writer: Writer, outsider: sqlite3.Connection
) -> None:
    before = writer.stats()
    async with held(writer):
        tasks = await queue_all(writer, [insert(index) for index in range(50)])
        assert writer.stats().queue_depth == 50
    assert await asyncio.gather(*tasks) == list(range(1, 51))
    assert entries(outsider) == list(range(50))
    after = writer.stats()
    assert after.batches - before.batches == 2  # the one that held, and the fifty
    assert after.operations - before.operations == 51
    assert (after.last_batch_size, after.queue_depth) == (50, 0)


async def test_a_batch_is_bounded(writer: Writer) -> None:
    before = writer.stats().batches
    async with held(writer):
        tasks = await queue_all(writer, [insert(index) for index in range(MAX_BATCH + 10)])
    await asyncio.gather(*tasks)
    after = writer.stats()
    assert (after.batches - before, after.last_batch_size) == (3, 10)


async def test_a_failing_operation_undoes_only_itself(
    writer: Writer, outsider: sqlite3.Connection
) -> None:
    error = ValueError("mine")
    async with held(writer):
        tasks = await queue_all(
            writer, [insert("a"), fail(error, after=insert("lost")), insert("b")]
        )
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes == [1, error, 2]
    assert entries(outsider) == ["a", "b"]


async def test_a_mistake_in_sql_is_internal_and_hurts_no_neighbour(
    writer: Writer, outsider: sqlite3.Connection
) -> None:
    def mistaken(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO no_such_table VALUES (1)")

    def broken(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO auth_generation VALUES (1, 1)")

    async with held(writer):
        tasks = await queue_all(writer, [insert("a"), mistaken, broken, insert("b")])
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int, InternalError, InternalError, int]
    assert isinstance(outcomes[1], InternalError)
    assert "no_such_table" not in outcomes[1].message
    assert isinstance(outcomes[1].__cause__, sqlite3.OperationalError)
    assert entries(outsider) == ["a", "b"]


async def test_a_commit_that_fails_fails_every_operation_of_its_batch(
    writer: Writer, outsider: sqlite3.Connection
) -> None:
    def orphan(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA defer_foreign_keys = ON")
        connection.execute("INSERT INTO cursors VALUES ('no such session', 'a', 1)")

    async with held(writer):
        tasks = await queue_all(writer, [insert("a"), orphan, insert("b")])
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    assert len({id(outcome) for outcome in outcomes}) == 3
    assert entries(outsider) == []
    assert await writer.run(insert("c")) == 1


async def test_a_batch_that_sqlite_itself_rolled_back_fails_as_a_whole(
    writer: Writer, outsider: sqlite3.Connection
) -> None:
    def abandon(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT OR ROLLBACK INTO auth_generation VALUES (1, 1)")

    async with held(writer):
        tasks = await queue_all(writer, [insert("a"), abandon, insert("b")])
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    assert entries(outsider) == []
    assert await writer.run(insert("c")) == 1


async def test_a_lock_that_is_not_released_in_time_is_unavailable(
    open_writer: Connect, outsider: sqlite3.Connection
) -> None:
    def impatient() -> sqlite3.Connection:
        connection = open_writer()
        connection.execute("PRAGMA busy_timeout = 20")
        return connection

    async with running(impatient) as writer:
        await writer.run(lambda connection: connection.execute("CREATE TABLE log (entry)"))
        outsider.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable) as caught:
            await writer.run(insert("a"))
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
        outsider.execute("ROLLBACK")
        assert await writer.run(insert("b")) == 1


async def test_a_full_disk_is_unavailable_until_there_is_room(
    writer: Writer, outsider: sqlite3.Connection
) -> None:
    (pages,) = await writer.run(
        lambda connection: connection.execute("PRAGMA page_count").fetchone()
    )
    await writer.run(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}"))
    async with held(writer):
        tasks = await queue_all(writer, [insert("a"), insert("x" * 100_000), insert("b")])
    outcomes: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    assert all("full" in str(outcome.__cause__) for outcome in outcomes)
    assert entries(outsider) == []
    await writer.run(lambda connection: connection.execute("PRAGMA max_page_count = 1000000"))
    assert await writer.run(insert("x" * 100_000)) == 1


async def test_a_read_only_database_is_unavailable(
    settings: Settings, open_reader: Connect
) -> None:
    async with running(open_reader) as writer:
        with pytest.raises(Unavailable) as caught:
            await writer.run(lambda connection: connection.execute("DELETE FROM sessions").rowcount)
        assert "readonly" in str(caught.value.__cause__)


async def test_a_caller_cancelled_while_waiting_takes_its_operation_back(
    writer: Writer, outsider: sqlite3.Connection
) -> None:
    async with held(writer):
        tasks = await queue_all(writer, [insert("a"), insert("b"), insert("c")])
        tasks[1].cancel()
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[1], asyncio.CancelledError)
    assert entries(outsider) == ["a", "c"]


async def test_a_caller_cancelled_under_way_is_written_and_hurts_no_neighbour(
    writer: Writer, outsider: sqlite3.Connection
) -> None:
    begun, release = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        insert("slow")(connection)
        begun.set()
        release.wait(PATIENCE_S)

    async with held(writer):
        tasks = await queue_all(writer, [slow, insert("b")])
    await asyncio.to_thread(begun.wait, PATIENCE_S)
    tasks[0].cancel()
    await asyncio.sleep(0)
    release.set()
    assert await tasks[1] == 2
    assert tasks[0].cancelled()
    assert entries(outsider) == ["slow", "b"]


async def test_closing_works_the_queue_off_first(
    open_writer: Connect, outsider: sqlite3.Connection
) -> None:
    async with running(open_writer) as writer:
        await writer.run(lambda connection: connection.execute("CREATE TABLE log (entry)"))
        async with held(writer):
            tasks = await queue_all(writer, [insert(index) for index in range(600)])
            closing = asyncio.ensure_future(writer.aclose())
            await asyncio.sleep(0)
            with pytest.raises(Unavailable):
                await writer.run(insert("late"))
        await closing
        assert all(task.done() for task in tasks)
    assert entries(outsider) == list(range(600))


async def test_a_queue_that_grows_too_long_refuses(writer: Writer) -> None:
    async with held(writer):
        tasks = await queue_all(writer, [insert(index) for index in range(MAX_QUEUED)])
        with pytest.raises(Unavailable):
            await writer.run(insert("one more"))
        for task in tasks:
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await writer.run(insert("room again"))


async def test_a_connection_that_cannot_be_opened_fails_the_start(settings: Settings) -> None:
    missing = settings.data_dir / "missing.db"
    writer = Writer(lambda: open_connection(missing, settings, query_only=False))
    with pytest.raises(sqlite3.OperationalError):
        await writer.start()
    await writer.aclose()
    with pytest.raises(Unavailable):
        await writer.run(insert("a"))
