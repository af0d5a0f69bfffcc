"""Stream events to a client: all messages that the caller may see, in order, and hints of other
changes.

Messages are read by a cursor, so that none is missed or sent twice. A hint says that something of
another kind has changed. It may come twice, but each removal of messages comes once: both its process and
the change stream tell of it. Hints are dropped while the reader is far behind.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from cachetools import LRUCache

from shared_context_server import policy
from shared_context_server.errors import (
    CursorLost,
    SessionNotFound,
    Unauthenticated,
    Unavailable,
)
from shared_context_server.events.bus import News, Subscription
from shared_context_server.models import Caller, Event, EventKind, Message, Permission
from shared_context_server.services.context import Services
from shared_context_server.services.follow import AllSessionsCursor, Cursor, Follow, SessionCursor

# Sessions for which a stream remembers whether its caller sees them, and which removal it was told of.
MAX_REMEMBERED = 1024
REMOVALS_AT_ONCE = 200  # sessions of one read


class Feed(Cursor, Protocol):
    """A cursor and the hints that go with it."""

    @property
    def session_id(self) -> str | None:
        """The session of the feed; None: all sessions."""

    def list_missed(self) -> AsyncGenerator[Event]:
        """The hints to begin with: which messages after the position were removed."""

    def wants(self, event: Event) -> bool:
        """Whether the event may be news for this feed."""

    async def shows(self, event: Event) -> bool:
        """Whether the event is a hint that the caller may see."""


async def open_session_feed(
    services: Services, caller: Caller, session_id: str, after_seq: int | None
) -> SessionFeed:
    """Open a feed of one session's messages after `after_seq`; None: from now on.

    Raises SessionNotFound, and CursorLost if the log ends before after_seq.
    """
    session = await services.store.sessions.get(session_id)
    policy.require_session_read(caller, session)
    if after_seq is not None and after_seq > session.last_seq:
        raise CursorLost(after_seq)
    if after_seq is None:
        return SessionFeed(services, caller, session_id, session.last_seq)
    feed = SessionFeed(services, caller, session_id, after_seq)
    if session.first_seq > after_seq + 1:
        feed.missed = _make_removal(session_id, session.first_seq)
    return feed


async def open_all_sessions_feed(
    services: Services, caller: Caller, after_id: int | None
) -> AllSessionsFeed:
    """Open a feed of the messages of all sessions after this message id; None: from now on.

    Raises CursorLost if this id has not been given out yet.
    """
    policy.require_permission(caller, Permission.READ)
    if after_id == 0:
        return AllSessionsFeed(services, caller, after_id)
    newest = await services.store.messages.get_newest_id()
    if after_id is None:
        return AllSessionsFeed(services, caller, newest, begins_now=True)
    if after_id > newest:
        raise CursorLost(after_id)
    return AllSessionsFeed(services, caller, after_id)


async def stream(
    services: Services, caller: Caller, feed: Feed, *, is_present: bool = True
) -> AsyncGenerator[Message | Event]:
    """Yield what the feed has and what comes, until the session is deleted, the store is set back
    to an earlier state, the credential ends or the server stops. The last event says why; when the
    server stops there is none. `is_present`: see Follow."""
    with services.bus.subscribe(feed.wants, session_id=feed.session_id) as subscription:
        items = follow_feed(services, caller, feed, subscription, is_present=is_present)
        async with aclosing(items):
            async for item in items:
                yield item


async def follow_feed(
    services: Services,
    caller: Caller,
    feed: Feed,
    subscription: Subscription,
    *,
    is_present: bool = True,
) -> AsyncGenerator[Message | Event]:
    """The same with a subscription to what the feed wants, which the caller keeps."""
    follow = Follow(services, caller, subscription, is_present=is_present)
    told: LRUCache[str | None, int] = LRUCache(MAX_REMEMBERED)  # the first_seq of each session
    try:
        async with aclosing(feed.list_missed()) as missed:
            async for event in missed:
                await follow.require_current()
                if _is_news(event, told):
                    yield event
        async for news in follow:
            try:
                while True:
                    for message in await follow.read(feed, news):
                        yield message
                    if not feed.has_more:
                        break
            except SessionNotFound:
                yield Event(EventKind.SESSION_DELETED, feed.session_id)
                return
            except CursorLost:
                yield Event(EventKind.LOG_SET_BACK, feed.session_id)
                return
            for event in dict.fromkeys(news.events):
                if await feed.shows(event) and _is_news(event, told):
                    yield event
    except Unauthenticated:
        yield Event(EventKind.CREDENTIAL_ENDED, feed.session_id)
    except Unavailable:
        return


def _make_removal(session_id: str, first_seq: int) -> Event:
    return Event(EventKind.MESSAGES_EXPIRED, session_id, seq=first_seq)


def _is_news(event: Event, told: LRUCache[str | None, int]) -> bool:
    """Whether the event is no removal of messages that was told before; note it."""
    if event.kind is not EventKind.MESSAGES_EXPIRED or event.seq is None:
        return True
    if event.seq <= told.get(event.session_id, 0):
        return False
    told[event.session_id] = event.seq
    return True


class SessionFeed(SessionCursor):
    """One session's messages by seq, and hints of changes to its memory, leases and status, and of
    messages that were removed. `missed`: the log begins after the position."""

    missed: Event | None = None

    async def list_missed(self) -> AsyncGenerator[Event]:
        if self.missed is not None:
            yield self.missed

    def wants(self, event: Event) -> bool:
        is_told = event.kind in (EventKind.MESSAGE_ADDED, EventKind.SESSION_DELETED)
        return is_told or self._is_shown(event)

    async def shows(self, event: Event) -> bool:
        return self._is_shown(event)

    def _is_shown(self, event: Event) -> bool:
        if event.kind is EventKind.MEMORY_CHANGED:
            return event.owner in (None, self.caller.agent_id)
        return event.kind in (
            EventKind.SESSION_CLOSED,
            EventKind.LEASE_CHANGED,
            EventKind.MESSAGES_EXPIRED,
        )


class AllSessionsFeed(AllSessionsCursor):
    """The messages of all sessions by id, and hints of all other changes. `begins_now`: nothing can
    have been missed."""

    session_id = None

    def __init__(
        self, services: Services, caller: Caller, after_id: int, *, begins_now: bool = False
    ) -> None:
        super().__init__(services, caller, after_id)
        self._begins_now = begins_now
        # The rights to a session never change, so this stays true even after its end.
        self._visible: LRUCache[str, bool] = LRUCache(MAX_REMEMBERED)

    async def list_missed(self) -> AsyncGenerator[Event]:
        after_id = self.position
        while not self._begins_now:
            found = await self.services.store.expiry.list_removals(
                self.caller, after_id=after_id, limit=REMOVALS_AT_ONCE
            )
            for removal in found:
                yield _make_removal(removal.session_id, removal.first_seq)
            if len(found) < REMOVALS_AT_ONCE:
                return
            after_id = found[-1].last_id

    def wants(self, event: Event) -> bool:
        return event.kind is not EventKind.MEMORY_CHANGED or event.owner in (
            None,
            self.caller.agent_id,
        )

    async def read(self, news: News) -> list[Message]:
        messages = await AllSessionsCursor.read(self, news)
        for message in messages:
            self._visible[message.session_id] = True
        return messages

    async def shows(self, event: Event) -> bool:
        return event.kind is not EventKind.MESSAGE_ADDED and await self.sees(event)

    async def sees(self, event: Event) -> bool:
        """Whether the caller may know of the event: it is of no session, or of one they see."""
        return event.session_id is None or await self._sees(event.session_id)

    async def _sees(self, session_id: str) -> bool:
        if self.caller.is_admin:
            return True
        known = self._visible.get(session_id)
        if known is not None:
            return known
        try:
            session = await self.services.store.sessions.get(session_id)
        except SessionNotFound:
            return False  # deleted: it is no longer known who could see it
        found = self._visible[session_id] = policy.can_see_session(self.caller, session)
        return found
