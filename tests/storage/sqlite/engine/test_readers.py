"""The read connections: that no slot is ever lost, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import threading
from collections.abc import AsyncIterator

import pytest

from shared_context_server.errors import InternalError, Unavailable
from shared_context_server.storage.sqlite.engine.readers import (
    MAX_WAITING,
    READER_TASK_NAME,
    Readers,
)
from tests.storage.sqlite.conftest import Connect

PATIENCE_S = 30  # a test that waits longer than this has failed
SIZE = 3


class CountedConnect:
    """Opens connections, counts them, and fails as often as it is told to."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self.opened: list[sqlite3.Connection] = []
        self.failures_to_come = 0

    def __call__(self) -> sqlite3.Connection:
        if self.failures_to_come:
            self.failures_to_come -= 1
            raise sqlite3.OperationalError("unable to open database file")
        connection = self._connect()
        self.opened.append(connection)
        return connection


@pytest.fixture
def connect(open_reader: Connect) -> CountedConnect:
    return CountedConnect(open_reader)


@contextlib.asynccontextmanager
async def running(connect: Connect, size: int = SIZE, wait_s: float = 10) -> AsyncIterator[Readers]:
    readers = Readers(connect, size, wait_s=wait_s)
    try:
        yield readers
    finally:
        await readers.aclose()


@pytest.fixture
async def readers(connect: CountedConnect) -> AsyncIterator[Readers]:
    async with running(connect) as readers:
        yield readers


def select_one(connection: sqlite3.Connection) -> int:
    (one,) = connection.execute("SELECT 1").fetchone()
    assert isinstance(one, int)
    return one


async def expect_all_slots(readers: Readers) -> None:
    """All connections can be at work at the same moment: each waits for the others."""
    barrier = threading.Barrier(SIZE)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(
            *(readers.run(lambda _: barrier.wait(PATIENCE_S)) for _ in range(SIZE))
        )


async def test_connections_are_opened_when_needed(
    readers: Readers, connect: CountedConnect
) -> None:
    assert connect.opened == []
    for _ in range(5):
        assert await readers.run(select_one) == 1
    assert len(connect.opened) == 1
    await expect_all_slots(readers)
    assert len(connect.opened) == SIZE


async def test_readers_cannot_write(readers: Readers) -> None:
    with pytest.raises(Unavailable) as caught:
        await readers.run(lambda connection: connection.execute("DELETE FROM sessions").rowcount)
    assert "readonly" in str(caught.value.__cause__)


async def test_waiting_reads_are_taken_without_a_turn_of_the_loop(connect: CountedConnect) -> None:
    begun, release = threading.Event(), threading.Event()
    taken = threading.Semaphore(0)

    def slow(connection: sqlite3.Connection) -> None:
        begun.set()
        release.wait(PATIENCE_S)

    async with running(connect, size=1) as readers:
        tasks = [asyncio.ensure_future(readers.run(slow))]
        tasks += [asyncio.ensure_future(readers.run(lambda _: taken.release())) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.to_thread(begun.wait, PATIENCE_S)
        release.set()
        for _ in range(3):  # here the loop stands still
            assert taken.acquire(timeout=PATIENCE_S)
        await asyncio.gather(*tasks)


async def test_a_slow_read_holds_up_none_behind_it(readers: Readers) -> None:
    release = threading.Event()
    slow = asyncio.ensure_future(readers.run(lambda _: release.wait(PATIENCE_S)))
    async with asyncio.timeout(PATIENCE_S / 2):
        assert await asyncio.gather(*(readers.run(select_one) for _ in range(50))) == [1] * 50
    release.set()
    assert await slow is True


async def test_what_a_function_raises_reaches_its_caller(
    readers: Readers, connect: CountedConnect
) -> None:
    def mine(connection: sqlite3.Connection) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await readers.run(mine)
    await readers.run(select_one)
    assert len(connect.opened) == 1


async def test_a_thousand_cancelled_reads_leave_every_slot(
    readers: Readers, connect: CountedConnect
) -> None:
    moments = random.Random(1)  # any; fixed, so that a failure repeats
    tasks: list[asyncio.Task[int]] = []
    for _ in range(1000):
        tasks.append(asyncio.ensure_future(readers.run(select_one)))
        for _ in range(moments.randrange(4)):
            await asyncio.sleep(0)
        moments.choice(tasks[-5:]).cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    cancelled = [outcome for outcome in outcomes if isinstance(outcome, asyncio.CancelledError)]
    assert len(cancelled) > 100
    assert all(outcome == 1 for outcome in outcomes if outcome not in cancelled)
    await expect_all_slots(readers)
    assert len(connect.opened) == SIZE


async def test_a_read_cancelled_under_way_frees_its_connection_when_it_ends(
    readers: Readers, connect: CountedConnect
) -> None:
    begun, release = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        begun.set()
        release.wait(PATIENCE_S)

    task = asyncio.ensure_future(readers.run(slow))
    await asyncio.sleep(0)
    await asyncio.to_thread(begun.wait, PATIENCE_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    await expect_all_slots(readers)
    assert len(connect.opened) == SIZE


async def test_a_read_cancelled_while_it_waits_is_not_run(connect: CountedConnect) -> None:
    begun, release = threading.Event(), threading.Event()
    ran: list[str] = []

    def slow(connection: sqlite3.Connection) -> None:
        begun.set()
        release.wait(PATIENCE_S)

    async with running(connect, size=1) as readers:
        busy = asyncio.ensure_future(readers.run(slow))
        await asyncio.sleep(0)
        await asyncio.to_thread(begun.wait, PATIENCE_S)
        waiting = [asyncio.ensure_future(readers.run(lambda _: ran.append("x"))) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        release.set()
        await asyncio.gather(busy, *waiting, return_exceptions=True)
    assert ran == ["x", "x"]


async def test_lanes_that_a_shutdown_cancels_lose_no_slot(
    readers: Readers, connect: CountedConnect
) -> None:
    await expect_all_slots(readers)
    await cancel_lanes()
    for connection in connect.opened:
        with pytest.raises(sqlite3.ProgrammingError):
            connection.execute("SELECT 1")
    await expect_all_slots(readers)
    assert len(connect.opened) == 2 * SIZE


async def cancel_lanes() -> None:
    reader_tasks = [task for task in asyncio.all_tasks() if task.get_name() == READER_TASK_NAME]
    for reader_task in reader_tasks:
        reader_task.cancel()
    await asyncio.wait(reader_tasks)


async def test_an_idle_connection_that_died_is_replaced(
    readers: Readers, connect: CountedConnect
) -> None:
    await expect_all_slots(readers)
    for connection in connect.opened:
        connection.close()
    assert await readers.run(select_one) == 1
    await expect_all_slots(readers)
    assert len(connect.opened) == 2 * SIZE


async def test_a_connection_is_used_up_by_an_error(
    readers: Readers, connect: CountedConnect
) -> None:
    for _ in range(2 * SIZE):
        with pytest.raises(InternalError):
            await readers.run(lambda connection: connection.execute("SELECT * FROM no_such_table"))
    await expect_all_slots(readers)
    assert len(connect.opened) == 3 * SIZE


async def test_all_statements_of_a_read_see_one_snapshot_and_the_next_read_a_new_one(
    connect: CountedConnect, outsider: sqlite3.Connection
) -> None:
    def count(connection: sqlite3.Connection) -> int:
        (agents,) = connection.execute("SELECT count(*) FROM agents").fetchone()
        assert isinstance(agents, int)
        return agents

    def count_around_a_write(connection: sqlite3.Connection) -> tuple[int, int]:
        before = count(connection)
        outsider.execute("INSERT INTO agents VALUES ('a', 't', 1, 1, 0)")
        return before, count(connection)

    async with running(connect, size=1) as readers:
        assert await readers.run(count_around_a_write) == (0, 0)
        assert await readers.run(count) == 1


async def test_a_failure_to_open_is_told_and_the_slot_stays(
    readers: Readers, connect: CountedConnect
) -> None:
    connect.failures_to_come = 2 * SIZE
    for _ in range(2 * SIZE):
        with pytest.raises(Unavailable) as caught:
            await readers.run(select_one)
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    await expect_all_slots(readers)


async def test_a_read_that_waits_too_long_is_unavailable(connect: CountedConnect) -> None:
    begun, release = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> str:
        begun.set()
        release.wait(PATIENCE_S)
        return "done"

    async with running(connect, size=1, wait_s=1) as readers:  # enough to open a connection
        busy = asyncio.ensure_future(readers.run(slow))
        await asyncio.sleep(0)
        await asyncio.to_thread(begun.wait, PATIENCE_S)
        with pytest.raises(Unavailable, match="in time"):
            await readers.run(select_one)
        with pytest.raises(Unavailable, match="in time"):
            await busy  # a disk that hangs gives no answer, but its callers get one
        release.set()


async def test_a_read_that_computes_too_long_gives_its_connection_back(
    connect: CountedConnect,
) -> None:
    def endless(connection: sqlite3.Connection) -> int:
        (count,) = connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        ).fetchone()
        return int(count)

    async with running(connect, size=1, wait_s=1) as readers:
        with pytest.raises(Unavailable, match="in time"):
            await readers.run(endless)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(Unavailable):  # the thread may take a moment to notice
                    assert await readers.run(select_one) == 1
                    break


async def test_a_queue_that_grows_too_long_refuses(connect: CountedConnect) -> None:
    begun, release = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        begun.set()
        release.wait(PATIENCE_S)

    async with running(connect, size=1) as readers:
        tasks: list[asyncio.Task[object]] = [asyncio.ensure_future(readers.run(slow))]
        await asyncio.sleep(0)
        await asyncio.to_thread(begun.wait, PATIENCE_S)
        tasks += [asyncio.ensure_future(readers.run(select_one)) for _ in range(MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await readers.run(select_one)
        for task in tasks[1:]:
            task.cancel()
        release.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await readers.run(select_one) == 1


async def test_closing_finishes_the_reads_and_closes_the_connections(
    connect: CountedConnect,
) -> None:
    async with running(connect) as readers:
        tasks = [asyncio.ensure_future(readers.run(select_one)) for _ in range(200)]
        await asyncio.sleep(0)
        await readers.aclose()
        assert await asyncio.gather(*tasks) == [1] * 200
        with pytest.raises(Unavailable):
            await readers.run(select_one)
    for connection in connect.opened:
        with pytest.raises(sqlite3.ProgrammingError):
            connection.execute("SELECT 1")


async def test_threads_of_connections_do_not_keep_a_program_from_ending(
    readers: Readers, connect: CountedConnect
) -> None:
    threads = [
        await readers.run(lambda _: threading.current_thread()),
        await readers.run(lambda _: threading.current_thread()),
    ]
    assert threads[0] is threads[1] is not threading.current_thread()
    assert threads[0].daemon
