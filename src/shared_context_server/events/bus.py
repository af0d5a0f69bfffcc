"""Deliver events to the subscribers of this process. A link brings the events of other processes.

An event says only that something was committed. It may come twice (from this process and from the
link), and a subscription that is not read in time drops events. Both are harmless, because readers
use a cursor: they subscribe first, then read, then wait.
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
    """The events of a subscription since the last read. `needs_resync`: events are missing, so the
    subscriber has to read the store. `is_set_back`: the store was set back to an earlier state than
    the one that was read; `needs_resync` is then set too."""

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
        """Wake the subscriber: events may be missing."""
        self._needs_resync = True
        self._arrived.set()

    def wake(self) -> None:
        """Wake the subscriber without news."""
        self._arrived.set()

    def set_back(self) -> None:
        """Wake the subscriber: the store was set back to an earlier state."""
        self._is_set_back = True
        self.require_resync()

    def close(self) -> None:
        """Wake the subscriber for the last time."""
        self._is_closed = True
        self._arrived.set()

    async def wait(self, timeout_s: float) -> News | None:
        """Wait for news and return all since the last call; None after `timeout_s`. Raises
        Unavailable when the server is stopping."""
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
        """Send an event of this process to the others. Never blocks, never raises."""

    def listen(self) -> None:
        """Deliver events of other processes to the bus from now on. Called for the first subscriber."""

    async def wait_until_listening(self) -> None:
        """Wait until everything that other processes publish from now on will be delivered, or for a
        second if the store does not answer. To be called while there is a subscriber."""

    def pause(self) -> None:
        """Stop delivering, which costs something. Called when the last subscriber has left."""


class NoLink:
    """For a store that only this process serves."""

    def announce(self, event: Event) -> None:
        pass

    def listen(self) -> None:
        pass

    async def wait_until_listening(self) -> None:
        pass

    def pause(self) -> None:
        pass


class Bus:
    """Delivers each event to the subscriptions that want it. For the tasks of one loop."""

    def __init__(self) -> None:
        self._link: Link = NoLink()
        # By session, since most want the events of one. None: subscriptions to all sessions.
        self._subscriptions: dict[str | None, set[Subscription]] = {}
        self._count = 0
        self._is_closed = False

    def connect(self, link: Link) -> None:
        """Use this link from now on. To be called before anybody subscribes."""
        self._link = link

    @property
    def subscriber_count(self) -> int:
        return self._count

    def has_subscribers(self, session_id: str) -> bool:
        """Whether anybody in this process may want an event of this session."""
        return session_id in self._subscriptions or None in self._subscriptions

    def publish(self, event: Event) -> None:
        """Deliver an event of this process, after its commit, here and to the other processes."""
        self.deliver(event)
        self._link.announce(event)

    def deliver(self, event: Event) -> None:
        """Deliver an event to the subscribers of this process."""
        for subscription in tuple(self._subscriptions.get(event.session_id, ())):
            subscription.offer(event)
        if event.session_id is not None:
            for subscription in tuple(self._subscriptions.get(None, ())):
                subscription.offer(event)

    def deliver_resync(self) -> None:
        """Make every subscriber read the store: events may be missing."""
        for subscriptions in tuple(self._subscriptions.values()):
            for subscription in tuple(subscriptions):
                subscription.require_resync()

    def wake_all(self) -> None:
        """Wake every subscriber without news, to check its credential."""
        for subscriptions in tuple(self._subscriptions.values()):
            for subscription in tuple(subscriptions):
                subscription.wake()

    def deliver_set_back(self) -> None:
        """Tell every subscriber that the store was set back to an earlier state."""
        for subscriptions in tuple(self._subscriptions.values()):
            for subscription in tuple(subscriptions):
                subscription.set_back()

    @contextmanager
    def subscribe(self, wants: Wanted, *, session_id: str | None = None) -> Iterator[Subscription]:
        """Subscribe for the length of the block to the events that `wants` accepts; with
        `session_id` only to that session's, which is cheaper."""
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

    async def wait_until_linked(self) -> None:
        """Wait until events of other processes arrive too. A subscriber that looks in the store first
        needs not wait: it is told to look again then."""
        await self._link.wait_until_listening()

    def close(self) -> None:
        """End all subscriptions, present and future ones: the server is stopping."""
        self._is_closed = True
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.close()
