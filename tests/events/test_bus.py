"""The bus of one process."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from shared_context_server.errors import Unavailable
from shared_context_server.events.bus import MAX_PENDING, Bus, News
from shared_context_server.models import Event, EventKind
from tests.events.news import PATIENCE_S, next_events


def added(seq: int, session_id: str = "session_1") -> Event:
    return Event(EventKind.MESSAGE_ADDED, session_id, seq=seq)


def want_all(event: Event) -> bool:
    return True


class CountingLink:
    """A link to nobody that notes how it is used."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def announce(self, event: Event) -> None:
        self.calls.append(f"announce {event.seq}")

    def listen(self) -> None:
        self.calls.append("listen")

    def pause(self) -> None:
        self.calls.append("pause")


async def test_what_happens_between_subscribing_and_waiting_is_not_lost() -> None:
    bus = Bus()
    with bus.subscribe(want_all, session_id="session_1") as subscription:
        bus.publish(added(1))
        bus.publish(added(2))
        assert await next_events(subscription) == [added(1), added(2)]
        assert await subscription.wait(0) is None


async def test_an_event_wakes_a_waiter() -> None:
    bus = Bus()
    with bus.subscribe(want_all, session_id="session_1") as subscription:
        waiting = asyncio.create_task(next_events(subscription))
        await anyio.wait_all_tasks_blocked()
        bus.publish(added(1))
        assert await waiting == [added(1)]


async def test_a_subscription_hears_what_it_wants_only() -> None:
    bus = Bus()
    shared_key = Event(EventKind.MEMORY_CHANGED, name="k")
    with (
        bus.subscribe(want_all, session_id="session_1") as of_one,
        bus.subscribe(lambda event: event.seq == 2) as second_ones,
        bus.subscribe(want_all) as everything,
    ):
        for event in (added(1), added(2), added(2, "session_2"), shared_key):
            bus.publish(event)
        assert await next_events(of_one, 0) == [added(1), added(2)]
        assert await next_events(second_ones, 0) == [added(2), added(2, "session_2")]
        assert len(await next_events(everything, 0)) == 4


async def test_who_does_not_read_in_time_is_told_so() -> None:
    bus = Bus()
    with bus.subscribe(want_all, session_id="session_1") as subscription:
        for seq in range(MAX_PENDING):
            bus.publish(added(seq))
        news = await subscription.wait(PATIENCE_S)
        assert news is not None
        assert (len(news.events), news.needs_resync) == (MAX_PENDING, False)
        for seq in range(MAX_PENDING + 1):
            bus.publish(added(seq))
        news = await subscription.wait(PATIENCE_S)
        assert news is not None
        assert [event.seq for event in news.events] == list(range(1, MAX_PENDING + 1))
        assert news.needs_resync
        bus.publish(added(MAX_PENDING + 1))
        assert await subscription.wait(PATIENCE_S) == News((added(MAX_PENDING + 1),))


async def test_the_unknown_wakes_everybody() -> None:
    bus = Bus()
    with (
        bus.subscribe(lambda event: False, session_id="session_1") as one,
        bus.subscribe(lambda event: False) as other,
    ):
        bus.deliver_resync()
        for subscription in (one, other):
            assert await subscription.wait(PATIENCE_S) == News(needs_resync=True)


async def test_who_subscribes_learns_that_the_store_was_set_back() -> None:
    bus = Bus()
    with bus.subscribe(lambda event: False, session_id="session_1") as subscription:
        bus.deliver_set_back()
        news = await subscription.wait(PATIENCE_S)
        assert news == News(needs_resync=True, is_set_back=True)
        bus.deliver_resync()
        assert await subscription.wait(PATIENCE_S) == News(needs_resync=True)


async def test_the_bus_knows_whether_a_session_interests_anybody() -> None:
    bus = Bus()
    with bus.subscribe(want_all, session_id="session_1"):
        assert bus.has_subscribers("session_1")
        assert not bus.has_subscribers("session_2")
    assert not bus.has_subscribers("session_1")
    with bus.subscribe(want_all):
        assert bus.has_subscribers("session_2")


async def test_closing_wakes_who_waits_and_who_comes() -> None:
    bus = Bus()
    with bus.subscribe(want_all) as subscription:
        waiting = asyncio.create_task(subscription.wait(PATIENCE_S))
        await anyio.wait_all_tasks_blocked()
        bus.close()
        with pytest.raises(Unavailable):
            await waiting
    with bus.subscribe(want_all) as late, pytest.raises(Unavailable):
        await late.wait(PATIENCE_S)
    assert bus.subscriber_count == 0


async def test_the_link_listens_while_there_are_subscribers() -> None:
    bus, link = Bus(), CountingLink()
    bus.connect(link)
    bus.publish(added(1))
    with bus.subscribe(want_all):
        with bus.subscribe(want_all, session_id="session_1"):
            bus.deliver(added(2))
        assert bus.subscriber_count == 1
    assert link.calls == ["announce 1", "listen", "pause"]
