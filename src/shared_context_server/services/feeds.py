"""Following what happens: every message one may see, in order, and hints of all else.

Messages are never missed nor shown twice, since they are read by a cursor. A hint says that something
of another kind has changed; it may come twice, and one that comes while the reader is far behind is
forgotten.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from cachetools import LRUCache

from shared_context_server import policy
from shared_context_server.errors import (
    CursorLost,
    SessionNotFound,
    Unauthenticated,
    Unavailable,
)
from shared_context_server.events.bus import Subscription
from shared_context_server.models import Caller, Event, EventKind, Message, Permission
from shared_context_server.services.context import Services
from shared_context_server.storage.contract import MessageQuery

PAGE_SIZE = 32  # messages a reader holds at a time
CHECK_INTERVAL_S = 30.0  # how often a quiet stream looks whether its credential is still good
MAX_REMEMBERED = 1024  # sessions of which a stream knows whether its caller sees them


class Log(Protocol):
    """What is followed, and how far it has been read."""

    @property
    def session_id(self) -> str | None:
        """The session whose log it is, None: all."""

    def wants(self, event: Event) -> bool:
        """Whether the event may be news here."""

    async def read_on(
        self, events: list[Event], *, is_certain: bool
    ) -> tuple[Sequence[Message], bool]:
        """The next messages, and whether there may be more. `is_certain`: the events tell of all
        that is new. Raises SessionNotFound when there is nothing left to follow."""

    async def shows(self, event: Event) -> bool:
        """Whether the event is a hint that the caller may have."""


async def open_session_log(
    services: Services, caller: Caller, session_id: str, after_seq: int | None
) -> SessionLog:
    """The log of one session from behind `after_seq` on, None: from now on.

    Raises SessionNotFound, and CursorLost if the log ends before after_seq.
    """
    session = await services.store.sessions.get(session_id)
    policy.require_session_read(caller, session)
    if after_seq is not None and after_seq > session.last_seq:
        raise CursorLost(after_seq)
    return SessionLog(
        services, caller, session_id, session.last_seq if after_seq is None else after_seq
    )


async def open_common_log(services: Services, caller: Caller, after_id: int | None) -> CommonLog:
    """The messages of all sessions from behind this message id on, None: from now on.

    Raises CursorLost if no message has had this id.
    """
    policy.require_permission(caller, Permission.READ)
    if after_id == 0:
        return CommonLog(services, caller, after_id)
    newest = await services.store.messages.get_newest_id()
    if after_id is not None and after_id > newest:
        raise CursorLost(after_id)
    return CommonLog(services, caller, newest if after_id is None else after_id)


async def follow(services: Services, caller: Caller, log: Log) -> AsyncGenerator[Message | Event]:
    """What is in the log and what comes, until the session is deleted, the store is set back to an
    earlier state, the credential ends or the server stops. A stream that is followed counts as a
    sign of life."""
    events: list[Event] = []
    is_certain = False
    # Subscribed before the first look, so that what is committed in between is heard of.
    with (
        services.bus.subscribe(log.wants, session_id=log.session_id) as subscription,
        suppress(Unavailable, Unauthenticated),
    ):
        while True:
            has_more = True
            while has_more:
                try:
                    messages, has_more = await log.read_on(events, is_certain=is_certain)
                except SessionNotFound:
                    break
                # After the reading: what is written after a revocation is not sent.
                await services.identity.require_current(caller)
                for message in messages:
                    yield message
            if has_more:
                yield Event(EventKind.SESSION_DELETED, log.session_id)
                return
            for event in dict.fromkeys(events):
                if await log.shows(event):
                    yield event
            events = await _wait_for_news(services, caller, subscription)
            if subscription.was_set_back:
                yield Event(EventKind.LOG_SET_BACK, log.session_id)
                return
            is_certain = not subscription.take_missed()


async def _wait_for_news(
    services: Services, caller: Caller, subscription: Subscription
) -> list[Event]:
    while True:
        services.presence.note(caller)
        events = await subscription.wait(CHECK_INTERVAL_S)
        if events or subscription.has_missed:
            return events
        await services.identity.require_current(caller)


class SessionLog:
    """One session's messages by seq."""

    def __init__(self, services: Services, caller: Caller, session_id: str, after_seq: int) -> None:
        self._services = services
        self._caller = caller
        self._read_up_to = after_seq
        self.session_id = session_id

    def wants(self, event: Event) -> bool:
        is_told = event.kind in (EventKind.MESSAGE_ADDED, EventKind.SESSION_DELETED)
        return is_told or self._is_shown(event)

    async def shows(self, event: Event) -> bool:
        return self._is_shown(event)

    def _is_shown(self, event: Event) -> bool:
        if event.kind is EventKind.MEMORY_CHANGED:
            return event.owner in (None, self._caller.agent_id)
        return event.kind in (EventKind.SESSION_CLOSED, EventKind.LEASE_CHANGED)

    async def read_on(
        self, events: list[Event], *, is_certain: bool
    ) -> tuple[Sequence[Message], bool]:
        if any(event.kind is EventKind.SESSION_DELETED for event in events):
            raise SessionNotFound(self.session_id)
        newest = max((event.seq or 0 for event in events), default=0)
        if is_certain and newest <= self._read_up_to:
            return [], False
        if is_certain and newest <= self._read_up_to + PAGE_SIZE:
            return await self._read_shared(), self._read_up_to < newest
        return await self._read_page()

    async def _read_page(self) -> tuple[Sequence[Message], bool]:
        query = MessageQuery(limit=PAGE_SIZE, after_seq=self._read_up_to, is_counted=False)
        guard = partial(policy.require_session_read, self._caller)
        page = await self._services.store.messages.list_visible(
            self.session_id, self._caller, query, guard
        )
        read_up_to = page.messages[-1].seq if page.has_more else page.last_seq
        self._read_up_to = max(self._read_up_to, read_up_to)
        return page.messages, page.has_more

    async def _read_shared(self) -> list[Message]:
        """The usual case, few new messages: many streams of a session share one read of them."""
        piece = await self._services.shared_reads.read(self.session_id, self._read_up_to)
        policy.require_session_read(self._caller, piece.session)
        if piece.messages:
            self._read_up_to = piece.messages[-1].seq
        return [
            message for message in piece.messages if policy.can_see_message(self._caller, message)
        ]


class CommonLog:
    """All sessions' messages by id."""

    session_id = None

    def __init__(self, services: Services, caller: Caller, after_id: int) -> None:
        self._services = services
        self._caller = caller
        self._read_up_to = after_id
        # Who may use a session never changes, so that this stays true, after its end too.
        self._visible: LRUCache[str, bool] = LRUCache(MAX_REMEMBERED)

    def wants(self, event: Event) -> bool:
        return event.kind is not EventKind.MEMORY_CHANGED or event.owner in (
            None,
            self._caller.agent_id,
        )

    async def read_on(
        self, events: list[Event], *, is_certain: bool
    ) -> tuple[Sequence[Message], bool]:
        if is_certain and all(event.kind is not EventKind.MESSAGE_ADDED for event in events):
            return [], False
        page = await self._services.store.messages.list_new(
            self._caller, after_id=self._read_up_to, limit=PAGE_SIZE
        )
        self._read_up_to = page.next_after_id
        for message in page.messages:
            self._visible[message.session_id] = True
        return page.messages, page.has_more

    async def shows(self, event: Event) -> bool:
        if event.kind is EventKind.MESSAGE_ADDED:
            return False
        return event.session_id is None or await self._sees(event.session_id)

    async def _sees(self, session_id: str) -> bool:
        if self._caller.is_admin:
            return True
        known = self._visible.get(session_id)
        if known is not None:
            return known
        try:
            session = await self._services.store.sessions.get(session_id)
        except SessionNotFound:
            return False  # deleted, and nobody can tell any more who saw it
        found = self._visible[session_id] = policy.can_see_session(self._caller, session)
        return found
