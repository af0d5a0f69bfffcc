"""Presence: who comes and goes is told once, by one process."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared_context_server.errors import Unavailable
from shared_context_server.events.bus import Bus, Subscription
from shared_context_server.models import Agent, Caller, EventKind, Permission
from shared_context_server.services.presence import GONE_AFTER, Presence
from shared_context_server.settings import Settings
from shared_context_server.storage import Store, open_storage
from tests.events.news import next_events

ALICE = Caller("alice", "claude", frozenset({Permission.READ}), "key")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    settings = Settings(data_dir=tmp_path, database_url=None)
    async with open_storage(settings) as store:
        yield store


async def hear(subscription: Subscription) -> list[tuple[EventKind, str | None]]:
    """What has been published, if anything."""
    return [(event.kind, event.agent_id) for event in await next_events(subscription, 0)]


async def test_coming_and_going_are_published_by_one_of_two_processes(store: Store) -> None:
    with ExitStack() as stack:
        buses = [Bus(), Bus()]
        processes = [Presence(store, bus) for bus in buses]
        heard = [stack.enter_context(bus.subscribe(lambda _event: True)) for bus in buses]
        for process in processes:
            process.note(ALICE, "get_time")
        for process in processes:
            await process.flush()
        assert [await hear(one) for one in heard] == [[(EventKind.AGENT_JOINED, "alice")], []]

        long_ago = datetime.now(UTC) - GONE_AFTER - timedelta(seconds=1)
        await store.agents.touch([Agent("bob", "gpt", long_ago, long_ago)])
        for process in reversed(processes):
            await process.flush()
        assert [await hear(one) for one in heard] == [[], [(EventKind.AGENT_LEFT, "bob")]]


async def test_what_could_not_be_written_is_told_later(tmp_path: Path) -> None:
    bus = Bus()
    settings = Settings(data_dir=tmp_path, database_url=None, sqlite_busy_timeout_ms=0)
    async with open_storage(settings) as store:
        presence = Presence(store, bus)
        presence.note(ALICE, "get_time")
        path = tmp_path / "shared_context.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as outsider:
            outsider.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable):
                await presence.flush()
        with bus.subscribe(lambda _event: True) as subscription:
            await presence.flush()
            assert await hear(subscription) == [(EventKind.AGENT_JOINED, "alice")]
