"""Live updates of pages as server-sent events.

A stream has a slot of its caller, like /events, and ends with the credential. A page either gets parts
of HTML, or the event `refresh`: then it asks for its parts anew. The event `ended` says why nothing will
come any more, and the page does not connect again. Scripts close the stream of a hidden tab.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import aclosing, suppress
from datetime import datetime, timedelta

from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shared_context_server.errors import Unauthenticated, Unavailable
from shared_context_server.models import Caller, Event, EventKind
from shared_context_server.rest.wire import finish_answer
from shared_context_server.services import feeds
from shared_context_server.services.context import Services
from shared_context_server.services.follow import Follow
from shared_context_server.steady_time import utc_now
from shared_context_server.ui.page import Page, PageRequest

HEARTBEAT_S = 15.0
SEND_TIMEOUT_S = 30.0
REFRESH_INTERVAL_S = 1.0  # a busy server makes a page ask again this often, not for every event
REFRESH = "refresh"
SIGNED_OUT = "Signed out"  # as the script of the pages says it
_NEWLINE = "\n"


class LiveResponse(Response):
    """A stream of events that holds one of the caller's slots. Raises RateLimited or Unavailable before
    it begins if there is none."""

    def __init__(self, page: PageRequest, events: AsyncGenerator[ServerSentEvent]) -> None:
        super().__init__()
        self._page = page
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = EventSourceResponse(
            _close_after(self._events),
            ping=HEARTBEAT_S,
            ping_message_factory=_make_heartbeat,
            send_timeout=SEND_TIMEOUT_S,
            sep=_NEWLINE,
        )
        async with aclosing(self._events):
            with self._page.services.slots.take(self._page.caller), suppress(SendTimeoutError):
                await finish_answer(response, scope, receive, send)


async def _close_after(events: AsyncGenerator[ServerSentEvent]) -> AsyncIterator[ServerSentEvent]:
    async with aclosing(events):
        async for event in events:
            yield event


def _make_heartbeat() -> ServerSentEvent:
    return ServerSentEvent(comment="alive", sep=_NEWLINE)


def make_event(data: str, *, event: str, id: str | None = None) -> ServerSentEvent:
    """Return an event as it is sent."""
    return ServerSentEvent(data, event=event, id=id, sep=_NEWLINE)


def make_end(reason: str) -> ServerSentEvent:
    """Return the last event of a stream, with what its page shows."""
    return make_event(reason, event="ended")


async def signal_changes(
    services: Services,
    caller: Caller,
    kinds: Collection[EventKind],
    *,
    interval_s: float = REFRESH_INTERVAL_S,
    tick_s: float | None = None,
) -> AsyncGenerator[ServerSentEvent]:
    """Yield `refresh` when something of these kinds has changed that the caller may see, at most once in
    `interval_s`. With `tick_s` also when that time has passed without one. When the credential has ended,
    the last event says so."""
    feed = await feeds.open_all_sessions_feed(services, caller, None)

    def wants(event: Event) -> bool:
        return event.kind in kinds and feed.wants(event)

    with services.bus.subscribe(wants) as subscription, suppress(Unavailable):
        follow = Follow(
            services,
            caller,
            subscription,
            begins_with_look=False,
            is_present=False,
        )
        follow.look_again_at = _find_next_tick(tick_s)
        try:
            async for news in follow:
                follow.look_again_at = _find_next_tick(tick_s)
                is_seen = news.needs_resync
                for event in dict.fromkeys(news.events):
                    is_seen = is_seen or await feed.sees(event)
                if is_seen:
                    await follow.require_current()
                    yield make_event("", event=REFRESH)
                    await asyncio.sleep(interval_s)
        except Unauthenticated:
            yield make_end(SIGNED_OUT)


def change_stream(path: str, kinds: Collection[EventKind], *, tick_s: float | None = None) -> Page:
    """Return the route of a stream that tells a page to ask for its parts anew; see signal_changes.
    The page gives its address to its template as `live`."""

    async def follow(page: PageRequest) -> Response:
        events = signal_changes(page.services, page.caller, kinds, tick_s=tick_s)
        return LiveResponse(page, events)

    return Page(path, follow)


def _find_next_tick(tick_s: float | None) -> datetime | None:
    return None if tick_s is None else utc_now() + timedelta(seconds=tick_s)
