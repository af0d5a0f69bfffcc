"""Reading a subscription in tests."""

from __future__ import annotations

from shared_context_server.events.bus import Subscription
from shared_context_server.models import Event

PATIENCE_S = 30.0  # for anything that has to happen; far above what it takes


async def next_events(subscription: Subscription, timeout_s: float = PATIENCE_S) -> list[Event]:
    """The events of the next news; none if the time passes without any."""
    news = await subscription.wait(timeout_s)
    return [] if news is None else list(news.events)


async def wait_for_event(subscription: Subscription, event: Event) -> None:
    """Until it has come, whatever comes before."""
    while event not in await next_events(subscription):
        pass


async def wait_for_resync(subscription: Subscription) -> None:
    """Until the subscriber has to look for itself: a link begins with that."""
    while (news := await subscription.wait(PATIENCE_S)) is None or not news.needs_resync:
        pass
