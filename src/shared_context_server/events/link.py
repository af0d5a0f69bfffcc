"""Carry events between the processes that serve one store.

While a process has subscribers, it reads the change stream: when another process wakes it, and at
intervals.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

from shared_context_server.background_tasks import BackgroundTasks
from shared_context_server.errors import SharedContextError
from shared_context_server.events.bus import Bus
from shared_context_server.models import Event, EventKind
from shared_context_server.observability.logs import get_logger
from shared_context_server.storage import Store
from shared_context_server.storage.contract import ChangePosition, Changes

POLL_INTERVAL_S = 0.25  # for writers that do not notify, such as commands, and lost wake-ups
POLL_INTERVAL_WITHOUT_WAKEUP_S = 0.02
# Between two reads of the change stream, so that a busy neighbour costs this process little.
PAUSE_S = 0.002
# After the last subscriber has left: a client that waits often soon subscribes again.
LINGER_S = 1.0
LISTENING_WAIT_S = 1.0  # for a subscriber that waits for the first position; it takes milliseconds
READ_LIMIT = 500
MAX_OWN_MESSAGES = 10_000

# The store keeps nothing of these but the event, so the link has to add it to the change stream.
_UNSTORED = frozenset({EventKind.AGENT_JOINED, EventKind.AGENT_LEFT})

_log = get_logger("events")


@asynccontextmanager
async def open_link(store: Store, bus: Bus) -> AsyncIterator[None]:
    """Connect the bus to the other processes that serve this store, for a with block."""
    link = ChangeStreamLink(store, bus)
    bus.connect(link)
    try:
        yield
    finally:
        await link.aclose()


class ChangeStreamLink:
    """A Link over the change stream of a store. Costs nothing while nobody subscribes."""

    def __init__(self, store: Store, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        self._is_woken = asyncio.Event()
        self._has_position = asyncio.Event()
        self._channel = store.changes.open_wakeup_channel(self._is_woken.set)
        self._interval_s = POLL_INTERVAL_WITHOUT_WAKEUP_S
        self._listening: asyncio.Task[None] | None = None
        self._tasks = BackgroundTasks("events-link")
        self._pausing: asyncio.TimerHandle | None = None
        self._is_notify_due = False
        self._is_closed = False
        self._position: ChangePosition | None = None
        self._unstored: list[Event] = []
        # Messages of this process, which the change stream will report once more.
        self._own_messages: set[tuple[str | None, int | None]] = set()

    def announce(self, event: Event) -> None:
        """Notify the other processes, once for all events of a turn of the loop."""
        if event.kind is EventKind.MESSAGE_ADDED:
            self._expect_own(event)
        elif event.kind in _UNSTORED:
            self._unstored.append(event)
        if not self._is_notify_due and not self._is_closed:
            self._is_notify_due = True
            self._loop.call_soon(self._notify_soon)

    def listen(self) -> None:
        if self._pausing is not None:
            self._pausing.cancel()
            self._pausing = None
        if self._listening is None and not self._is_closed:
            can_listen = self._channel.start_listening()
            self._interval_s = POLL_INTERVAL_S if can_listen else POLL_INTERVAL_WITHOUT_WAKEUP_S
            self._position = None
            self._has_position.clear()
            self._listening = self._tasks.start(self._listen())

    async def wait_until_listening(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LISTENING_WAIT_S):
                await self._has_position.wait()

    def pause(self) -> None:
        if self._listening is not None and not self._is_closed:
            self._pausing = self._loop.call_later(LINGER_S, self._stop_listening)

    async def aclose(self) -> None:
        """Stop listening, and wait for the tasks to end."""
        self._is_closed = True
        self._stop_listening()
        self._channel.close()
        await self._tasks.wait()

    def _stop_listening(self) -> None:
        if self._pausing is not None:
            self._pausing.cancel()
            self._pausing = None
        self._channel.stop_listening()
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None
        self._own_messages.clear()

    # Events for the other processes

    def _notify_soon(self) -> None:
        self._is_notify_due = False
        if self._unstored:
            events, self._unstored = self._unstored, []
            self._tasks.start(self._store_all(events))
        else:
            self._channel.notify()

    async def _store_all(self, events: list[Event]) -> None:
        with suppress(SharedContextError):  # presence, which nobody relies on
            await self._store.changes.add(events)
        self._channel.notify()

    # Events of the other processes

    def _expect_own(self, event: Event) -> None:
        if self._listening is None:
            return
        if len(self._own_messages) >= MAX_OWN_MESSAGES:
            self._own_messages.clear()  # an event that comes twice is harmless
        self._own_messages.add((event.session_id, event.seq))

    async def _listen(self) -> None:
        is_failing = False
        while True:
            try:
                # After a failure, read on from the old position. That shows whether the store that
                # answers now, which may be another one or restored, has the same history.
                self._position = (
                    await self._store.changes.get_position()
                    if self._position is None
                    else await self._read_on(self._position)
                )
                self._has_position.set()
                # Something may have been committed while nobody read, before the position was taken.
                self._bus.deliver_resync()
                if is_failing:
                    is_failing = False
                    _log.info("the change stream can be read again")
                await self._follow()
            except SharedContextError as exc:
                if not is_failing:
                    is_failing = True
                    _log.warning("cannot read the change stream", code=exc.code, error=exc.message)
                await asyncio.sleep(POLL_INTERVAL_S)

    async def _follow(self) -> NoReturn:
        """Deliver new events until the change stream cannot be read."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._is_woken.wait()
            self._is_woken.clear()
            assert self._position is not None
            self._position = await self._read_on(self._position)

    async def _read_on(self, position: ChangePosition) -> ChangePosition:
        """Deliver the events after the position; return the new position."""
        is_at_end = False
        while not is_at_end:
            changes = await self._store.changes.read(position, READ_LIMIT)
            position = changes.position
            self._position = position
            is_at_end = len(changes.events) < READ_LIMIT
            self._deliver(changes)
            if changes.events:
                await asyncio.sleep(PAUSE_S)
        return position

    def _deliver(self, changes: Changes) -> None:
        if changes.is_set_back:
            _log.error("the store was set back to an earlier state: readers are told")
            self._own_messages.clear()
            self._bus.deliver_set_back()
        elif not changes.is_complete:
            self._bus.deliver_resync()
        for event in changes.events:
            message = (event.session_id, event.seq)
            if event.kind is EventKind.MESSAGE_ADDED and message in self._own_messages:
                self._own_messages.discard(message)
            else:
                self._bus.deliver(event)
