"""Presence: who comes and goes is told once, by one process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared_context_server.errors import Unavailable
from shared_context_server.events.bus import Bus, Subscription
from shared_context_server.models import Agent, Caller, EventKind, Permission
from shared_context_server.services.presence import GONE_AFTER, Presence
from shared_context_server.settings import Settings
from shared_context_server.storage import Storage, open_storage
from tests.events.news import next_events

ALICE = Caller("alice", "claude", frozenset({Permission.READ}), "key")


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    settings = Settings(data_dir=tmp_path, database_url=None)
    async with open_storage(settings) as storage:
        yield storage


async def hear(subscription: Subscription) -> list[tuple[EventKind, str | None]]:
    """What has been published, if anything."""
    return [(event.kind, event.agent_id) for event in await next_events(subscription, 0)]


async def test_coming_and_going_are_published_by_one_of_two_processes(storage: Storage) -> None:
    with ExitStack() as stack:
        buses = [Bus(), Bus()]
        processes = [Presence(storage, bus) for bus in buses]
        heard = [stack.enter_context(bus.subscribe(lambda _event: True)) for bus in buses]
        for process in processes:
            process.note(ALICE)
        for process in processes:
            await process.flush()
        assert [await hear(one) for one in heard] == [[(EventKind.AGENT_JOINED, "alice")], []]

        long_ago = datetime.now(UTC) - GONE_AFTER - timedelta(seconds=1)
        await storage.touch_agents([Agent("bob", "gpt", long_ago, long_ago)])
        for process in reversed(processes):
            await process.flush()
        assert [await hear(one) for one in heard] == [[], [(EventKind.AGENT_LEFT, "bob")]]


async def test_what_could_not_be_written_is_told_later(storage: Storage, tmp_path: Path) -> None:
    bus = Bus()
    settings = Settings(data_dir=tmp_path, database_url=None)
    async with open_storage(settings) as closing:
        presence = Presence(closing, bus)
    presence.note(ALICE)
    with pytest.raises(Unavailable):
        await presence.flush()
    presence._storage = storage
    with bus.subscribe(lambda _event: True) as subscription:
        await presence.flush()
        assert await hear(subscription) == [(EventKind.AGENT_JOINED, "alice")]
