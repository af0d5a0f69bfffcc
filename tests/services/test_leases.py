"""A lease is not left with a caller that has gone."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from shared_context_server.auth.keys import AUTH_DISABLED
from shared_context_server.models import Caller, Event, EventKind
from shared_context_server.server import Server, open_server
from shared_context_server.services import follow, leases
from shared_context_server.services.context import Services
from shared_context_server.storage.sqlite.engine.connections import database_path
from tests.events.news import next_events
from tests.settings import make_settings
from tests.storage import builders

PATIENCE_S = 30

# Who waits is asked for again whether their key still counts; this one everybody holds.
ALICE, BOB = (
    replace(caller, key_id=AUTH_DISABLED.key_id) for caller in (builders.ALICE, builders.BOB)
)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with open_server(make_settings(tmp_path / "data", auth_enabled=False)) as server:
        yield server


@pytest.fixture
def services(server: Server) -> Services:
    return server.services


@pytest.fixture
def outsider(server: Server) -> Iterator[sqlite3.Connection]:
    """A connection that can hold up the server's writes."""
    if server.settings.database_url is not None:
        pytest.skip("needs an SQLite file, which one connection can lock")
    path = database_path(server.settings)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


async def acquire(
    services: Services, caller: Caller = ALICE, *, wait_seconds: float = 0
) -> leases.LeaseAttempt:
    request = leases.LeaseRequest(
        session_id=None, name="deploy", ttl_seconds=600, wait_seconds=wait_seconds
    )
    return await leases.acquire_lease(services, caller, request)


async def cancel_while_writing(services: Services, outsider: sqlite3.Connection) -> None:
    """Cancel an acquire_lease of ALICE's once its write is on its way, and see it end."""
    outsider.execute("BEGIN IMMEDIATE")
    task = asyncio.create_task(acquire(services))
    await anyio.wait_all_tasks_blocked()  # the write has been handed over
    assert not task.done()
    task.cancel()
    await anyio.wait_all_tasks_blocked()
    outsider.execute("ROLLBACK")
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_lease_granted_to_a_cancelled_call_is_given_back(
    services: Services, outsider: sqlite3.Connection
) -> None:
    with services.bus.subscribe(lambda event: True) as changes:
        await cancel_while_writing(services, outsider)
        assert await next_events(changes) == [Event(EventKind.LEASE_CHANGED, name="deploy")]
    attempt = await acquire(services, BOB)
    assert attempt.is_acquired
    assert attempt.lease.fencing_token == 2  # the cancelled call did have it


async def test_a_cancelled_renewal_keeps_the_lease(
    services: Services, outsider: sqlite3.Connection
) -> None:
    first = await acquire(services)
    await cancel_while_writing(services, outsider)
    (held,) = (await leases.list_leases(services, ALICE, None)).leases
    assert (held.holder, held.fencing_token) == ("alice", first.lease.fencing_token)


async def test_who_waits_is_told_that_the_call_is_alive(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "PROGRESS_INTERVAL_S", 0.01)
    await acquire(services)
    told: asyncio.Queue[tuple[float, float]] = asyncio.Queue()

    async def report(waited_s: float, at_most_s: float) -> None:
        told.put_nowait((waited_s, at_most_s))

    request = leases.LeaseRequest(
        session_id=None, name="deploy", ttl_seconds=600, wait_seconds=PATIENCE_S
    )
    task = asyncio.create_task(leases.acquire_lease(services, BOB, request, report))
    async with asyncio.timeout(PATIENCE_S):
        reports = [await told.get() for _ in range(3)]
        assert reports == sorted(reports)
        assert {at_most_s for _, at_most_s in reports} == {PATIENCE_S}
        await leases.release_lease(services, ALICE, session_id=None, name="deploy", fencing_token=1)
        assert (await task).is_acquired
