"""Commits a second of one PostgreSQL: by connections, by where they write, and by how they notify.

No server takes part but the database: each writer adds messages one after the other, with the
statement that add_message makes, on a connection of its own or through a replica's store.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import asyncpg

from bench.tables import print_table
from bench.throughput import CONTENT
from shared_context_server.models import Access, AuditEntry, Caller, Permission, Session, Visibility
from shared_context_server.settings import Settings
from shared_context_server.steady_time import utc_now
from shared_context_server.storage import Store
from shared_context_server.storage.contract import NewMessage, NewSession
from shared_context_server.storage.postgres import messages, open_postgres
from shared_context_server.storage.postgres.engine.notifications import CHANNEL, NotifyChannel
from shared_context_server.storage.postgres.engine.pool import open_pool

CONNECTIONS = (1, 4, 16)
ROUNDS = 3
SECONDS = 0.7
# Each commit waits this long for others before it goes to the disk, µs: what a networked disk takes.
SLOW_DISK_US = 2000
FSYNCS = 500
BLOCK = b"x" * 8192  # a page of PostgreSQL
WRITER = Caller(
    agent_id="bench",
    agent_type="generic",
    permissions=frozenset({Permission.READ, Permission.WRITE}),
    key_id="bench",
)

Append = Callable[[asyncpg.Connection, Session], Awaitable[None]]


def bench_settings(url: str) -> Settings:
    return Settings(database_url=url)


async def add_session(store: Store, session_id: str) -> Session:
    new = NewSession(
        id=session_id,
        purpose="bench",
        metadata={},
        access=Access.OPEN,
        created_by=WRITER.agent_id,
        created_at=utc_now(),
    )
    made = AuditEntry(event_type="session_created", agent_id=WRITER.agent_id, timestamp=utc_now())
    return await store.sessions.create(new, made)


def new_message(session_id: str, content: str = CONTENT) -> NewMessage:
    return NewMessage(
        session_id=session_id,
        sender=WRITER,
        content=content,
        visibility=Visibility.PUBLIC,
        recipients=(),
        metadata={},
        parent_message_id=None,
        created_at=utc_now(),
    )


async def append(connection: asyncpg.Connection, session: Session) -> None:
    assert all(await messages.append_batch(connection, [new_message(session.id)], session))


async def append_and_notify(connection: asyncpg.Connection, session: Session) -> None:
    """What the server does not do."""
    async with connection.transaction():
        await append(connection, session)
        await connection.execute("SELECT pg_notify($1, 'bench')", CHANNEL)


@dataclass
class Way:
    """`rates` by number of connections, a list of rounds each."""

    name: str
    append: Append
    is_one_session: bool = False
    rates: dict[int, list[float]] = field(default_factory=dict)

    def rate(self, count: int) -> float:
        return statistics.median(self.rates[count])


async def measure_rate(
    connections: Sequence[asyncpg.Connection], sessions: Sequence[Session], way: Way
) -> float:
    """Commits a second; connection by connection a session of its own, or all the first one."""
    deadline = time.perf_counter() + SECONDS
    committed = 0

    async def write(connection: asyncpg.Connection, session: Session) -> None:
        nonlocal committed
        while time.perf_counter() < deadline:
            await way.append(connection, session)
            committed += 1

    started = time.perf_counter()
    await asyncio.gather(
        *(
            write(connection, sessions[0 if way.is_one_session else number])
            for number, connection in enumerate(connections)
        )
    )
    return committed / (time.perf_counter() - started)


async def measure(url: str, delay_us: int) -> list[Way]:
    """All ways in turns, so that a noisy moment hits all alike."""
    delay = {"commit_delay": delay_us, "commit_siblings": 0}
    settings = bench_settings(f"{url}?{urlencode(delay)}")
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_postgres(settings))
        pool = await open_pool(settings)
        stack.push_async_callback(pool.aclose)
        channel = NotifyChannel(pool, settings, lambda: None)
        stack.push_async_callback(channel.aclose)
        sessions = [
            await add_session(store, f"commits_{delay_us}_{n}") for n in range(max(CONNECTIONS))
        ]
        connections = [await asyncpg.connect(settings.storage_url) for _ in sessions]
        for connection in connections:
            stack.push_async_callback(connection.close)

        async def append_and_notify(connection: asyncpg.Connection, session: Session) -> None:
            await append(connection, session)
            channel.notify()

        async def append_together(_: asyncpg.Connection, session: Session) -> None:
            await store.messages.append(new_message(session.id), lambda _: None)
            channel.notify()

        ways = [
            Way("rung after the commit", append_and_notify),
            Way("NOTIFY in the transaction", append_and_notify),
            Way("all into one session, each for itself", append_and_notify, is_one_session=True),
            Way("all into one session, as it is", append_together, is_one_session=True),
        ]
        for number in range(ROUNDS + 1):
            for count in CONNECTIONS:
                for way in ways:
                    rate = await measure_rate(connections[:count], sessions, way)
                    if number:  # the first round warms up
                        way.rates.setdefault(count, []).append(rate)
    return ways


def measure_fsync_ms(directory: str) -> float:
    """Median of writing a block over another and waiting for the disk, as a database's log does."""
    taken = []
    with (Path(directory) / "fsyncs").open("wb+", buffering=0) as file:
        file.write(BLOCK * FSYNCS)
        os.fsync(file.fileno())
        for number in range(FSYNCS):
            started = time.perf_counter()
            os.pwrite(file.fileno(), BLOCK, number * len(BLOCK))
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1000


async def report(url: str, directory: str) -> None:
    """`directory` is on the database's disk."""
    fsync_ms = measure_fsync_ms(directory)
    disks = [("this disk", 0), (f"a disk of {SLOW_DISK_US / 1000:.0f} ms", SLOW_DISK_US)]
    rows = []
    for name, delay_us in disks:
        ways = await measure(url, delay_us)
        rows += [
            [f"{name}: {way.name}", *(f"{way.rate(n):.0f}" for n in CONNECTIONS)] for way in ways
        ]
    print_table(
        f"Messages committed a second, straight to the database, median of {ROUNDS} rounds;"
        f" an fsync of this disk takes {fsync_ms:.2f} ms",
        ["by connections", *map(str, CONNECTIONS)],
        rows,
    )
