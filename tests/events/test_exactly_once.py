"""Whoever reads by cursor sees each message once, in order, whatever happens in between."""

from __future__ import annotations

import asyncio
import math
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shared_context_server.events.bus import Bus
from shared_context_server.models import Event, EventKind
from shared_context_server.settings import Settings
from shared_context_server.storage import Store
from shared_context_server.storage.contract import MessageQuery
from tests.events.conftest import PATIENCE_S, open_linked
from tests.postgres import DatabaseServer
from tests.storage.builders import BOB, add_message, add_session, allow

PROCESSES = 2
READERS = 3

# Which of the "processes" (a store and a bus on the one database) does what.
writes = st.tuples(st.just("write"), st.integers(0, PROCESSES - 1), st.integers(1, 5))
waits = st.tuples(st.just("wait"), st.integers(0, READERS - 1), st.integers(0, PROCESSES - 1))
restarts = st.tuples(st.just("restart"), st.integers(0, PROCESSES - 1), st.just(0))
pauses = st.tuples(st.just("pause"), st.integers(0, 20), st.just(0))


class Reader:
    """Reads by cursor and waits in between, as wait_for_messages does."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    @property
    def cursor(self) -> int:
        return self.seen[-1] if self.seen else 0

    async def look(self, store: Store) -> bool:
        query = MessageQuery(limit=3, after_seq=self.cursor)
        page = await store.messages.list_visible("session_1", BOB, query, allow)
        self.seen += [message.seq for message in page.messages]
        return bool(page.messages)

    async def read_up_to(self, last_seq: int, store: Store, bus: Bus) -> None:
        with bus.subscribe(lambda event: True, session_id="session_1") as subscription:
            while self.cursor < last_seq:
                if not await self.look(store):
                    # No look without a reason: a wake-up that is lost fails the test.
                    async with asyncio.timeout(PATIENCE_S):
                        await subscription.wait(math.inf)


class World:
    """One store, the processes that have it open, and how much was written."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stacks: dict[int, AsyncExitStack] = {}
        self.processes: dict[int, tuple[Store, Bus]] = {}
        self.written = 0

    async def start(self, number: int) -> None:
        stack = self._stacks[number] = AsyncExitStack()
        self.processes[number] = await stack.enter_async_context(open_linked(self._settings))

    async def stop(self, number: int) -> None:
        await self._stacks.pop(number).aclose()

    async def write(self, number: int, count: int) -> None:
        store, bus = self.processes[number]

        async def one() -> None:
            added = await add_message(store)
            bus.publish(Event(EventKind.MESSAGE_ADDED, "session_1", seq=added.seq))

        self.written += count
        await asyncio.gather(*(one() for _ in range(count)))


async def play(settings: Settings, steps: list[tuple[str, int, int]]) -> None:
    world = World(settings)
    readers = [Reader() for _ in range(READERS)]
    reading: dict[int, tuple[int, asyncio.Task[None]]] = {}
    for number in range(PROCESSES):
        await world.start(number)
    await add_session(world.processes[0][0])
    try:
        for kind, first, second in steps:
            if kind == "write":
                await world.write(first, second)
            elif kind == "pause":
                for _ in range(first):
                    await asyncio.sleep(0)
            elif kind == "wait" and first not in reading:
                # For more than there is: it has to be woken, here or by the last write.
                store, bus = world.processes[second]
                goal = world.written + 2
                task = asyncio.create_task(readers[first].read_up_to(goal, store, bus))
                reading[first] = (second, task)
            elif kind == "restart":
                for reader, (process, task) in list(reading.items()):
                    if process == first:  # its client is cut off, and comes again
                        task.cancel()
                        await asyncio.wait([task])
                        del reading[reader]
                await world.stop(first)
                await world.start(first)
        await world.write(0, 2)  # what those who wait still lack
        for _, task in reading.values():
            await task
        for reader in readers:
            await reader.read_up_to(world.written, *world.processes[1])
            assert reader.seen == list(range(1, world.written + 1))
    finally:
        for _, task in reading.values():
            task.cancel()
        for number in range(PROCESSES):
            await world.stop(number)


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(writes, writes, waits, waits, restarts, pauses), max_size=25))
def test_any_interleaving_shows_each_message_once_in_order(
    steps: list[tuple[str, int, int]],
) -> None:
    with tempfile.TemporaryDirectory() as data_dir:
        asyncio.run(play(Settings(data_dir=Path(data_dir), database_url=None), steps))


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(st.one_of(writes, writes, waits, waits, restarts, pauses), max_size=25))
def test_on_postgresql_too(
    steps: list[tuple[str, int, int]], postgres: DatabaseServer, tmp_path: Path
) -> None:
    with postgres.new_database() as found:
        asyncio.run(play(Settings(data_dir=tmp_path, **found), steps))
