"""Deliver events to the subscribers of this process. Events of other processes come in by a link.

An event says only that something was committed. It may come twice (from this process and from a
link), and a subscription that is not read in time drops events. Both are harmless, since readers go
by their cursor: they subscribe first, then look, then wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from shared_context_server.errors import Unavailable
from shared_context_server.models import Event

MAX_PENDING = 256  # events a subscription keeps; it drops older ones, and then needs a resync

Wanted = Callable[[Event], bool]


@dataclass(frozen=True, slots=True)
class News:
    """What a subscription was told since it was last read. `needs_resync`: the events are not
    everything that happened, so the subscriber has to look in the store. `is_set_back`: the store is in
    an earlier state than the one that was read; `needs_resync` is set then, too."""

    events: Sequence[Event] = ()
    needs_resync: bool = False
    is_set_back: bool = False


class Subscription:
    """The events of one subscriber since it subscribed. For one task at a time."""

    def __init__(self, wants: Wanted) -> None:
        self._wants = wants
        self._pending: deque[Event] = deque(maxlen=MAX_PENDING)
        self._arrived = asyncio.Event()
        self._needs_resync = False
        self._is_set_back = False
        self._is_closed = False

    def offer(self, event: Event) -> None:
        """Keep the event if it is wanted, and wake the subscriber."""
        if self._wants(event):
            self._needs_resync |= len(self._pending) == MAX_PENDING
            self._pending.append(event)
            self._arrived.set()

    def require_resync(self) -> None:
        """Wake the subscriber: something may have happened that no event tells."""
        self._needs_resync = True
        self._arrived.set()

    def set_back(self) -> None:
        """Wake the subscriber: the store is in an earlier state than the one it has read."""
        self._is_set_back = True
        self.require_resync()

    def close(self) -> None:
        """Wake the subscriber for the last time."""
        self._is_closed = True
        self._arrived.set()

    async def wait(self, timeout_s: float) -> News | None:
        """Return the news since the last call, as soon as there is any; None after `timeout_s`.
        Raises Unavailable when the server is stopping."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._arrived.wait()
        except TimeoutError:
            return None
        if self._is_closed:
            raise Unavailable("The server is stopping.")
        news = News(tuple(self._pending), self._needs_resync, self._is_set_back)
        self._arrived.clear()
        self._pending.clear()
        self._needs_resync = self._is_set_back = False
        return news


class Link(Protocol):
    """Carries events between the processes that serve one store."""

    def announce(self, event: Event) -> None:
        """Tell the others of an event of this process; never blocks, never raises."""

    def listen(self) -> None:
        """Called when the first subscriber comes: from now on hand events of others to the bus."""

    def pause(self) -> None:
        """Called when the last subscriber has gone: nobody listens, and listening costs something."""


class NoLink:
    """For a store that only this process serves."""

    def announce(self, event: Event) -> None:
        pass

    def listen(self) -> None:
        pass

    def pause(self) -> None:
        pass


class Bus:
    """Hands each event to the subscriptions that want it. For the tasks of one loop."""

    def __init__(self) -> None:
        self._link: Link = NoLink()
        # By session, since most wait for news of one; None: those who want others too.
        self._subscriptions: dict[str | None, set[Subscription]] = {}
        self._count = 0
        self._is_closed = False

    def connect(self, link: Link) -> None:
        """Use this link from now on; before anybody subscribes."""
        self._link = link

    @property
    def subscriber_count(self) -> int:
        return self._count

    def has_subscribers(self, session_id: str) -> bool:
        """Whether an event of this session may interest anybody in this process."""
        return session_id in self._subscriptions or None in self._subscriptions

    def publish(self, event: Event) -> None:
        """An event of this process, after its commit."""
        self.deliver(event)
        self._link.announce(event)

    def deliver(self, event: Event) -> None:
        """An event from anywhere, to the subscribers of this process."""
        for subscription in tuple(self._subscriptions.get(event.session_id, ())):
            subscription.offer(event)
        if event.session_id is not None:
            for subscription in tuple(self._subscriptions.get(None, ())):
                subscription.offer(event)

    def deliver_resync(self) -> None:
        """Something may have happened that no event tells: every subscriber has to look."""
        for subscriptions in tuple(self._subscriptions.values()):
            for subscription in tuple(subscriptions):
                subscription.require_resync()

    def deliver_set_back(self) -> None:
        """The store was set back to an earlier state: what anybody remembers of it may be lost."""
        for subscriptions in tuple(self._subscriptions.values()):
            for subscription in tuple(subscriptions):
                subscription.set_back()

    @contextmanager
    def subscribe(self, wants: Wanted, *, session_id: str | None = None) -> Iterator[Subscription]:
        """A subscription for the length of the block; with `session_id` only to that session's
        events, which is cheaper, else to all that `wants` accepts."""
        subscription = Subscription(wants)
        if self._is_closed:
            subscription.close()
        self._subscriptions.setdefault(session_id, set()).add(subscription)
        self._count += 1
        if self._count == 1:
            self._link.listen()
        try:
            yield subscription
        finally:
            others = self._subscriptions[session_id]
            others.discard(subscription)
            if not others:
                del self._subscriptions[session_id]
            self._count -= 1
            if self._count == 0:
                self._link.pause()

    def close(self) -> None:
        """The server is stopping: whoever waits is told at once, and so is whoever comes."""
        self._is_closed = True
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.close()
