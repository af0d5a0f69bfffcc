"""Follow a log: a cursor that reads it, and a loop that waits for its events.

Waiting calls, event streams, MCP subscriptions and lease waits are all built on these two. They
share these rules:

- Subscribe first, then read, then wait. Nothing that is committed in between is missed.
- The cursor decides what is new, never the event. An event may come twice, late, or not at all.
- If the events report everything that is new, and it is little, readers share one read. Otherwise
  each reads a page of its own.
- If a shared read finds nothing although there was an event, a page is read. A cursor after the end
  of the log means that the store was set back to an earlier state.
- The credential is checked again after each read and before each write. So nothing written after a
  revocation is shown, and nothing is written after one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from shared_context_server import policy
from shared_context_server.errors import CursorLost, SessionNotFound
from shared_context_server.events.bus import News, Subscription
from shared_context_server.models import Caller, EventKind, Message, Session, Visibility
from shared_context_server.services.context import Services
from shared_context_server.services.shared_reads import READ_LIMIT
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.contract import MessageQuery

PROGRESS_INTERVAL_S = 5.0  # far below the 30 to 60 s after which proxies cut what is silent
CHECK_INTERVAL_S = 30.0  # how often an idle follower checks that its credential is still valid

ReportProgress = Callable[[float, float], Awaitable[None]]
"""Tells a caller who asked for it that the call is alive: seconds waited, seconds at most."""


class Cursor(Protocol):
    """A position in a log, as one caller sees it."""

    has_more: bool
    """Whether the last `read` has left something: then `read` again, with the same news."""

    async def read(self, news: News) -> list[Message]:
        """Return the next messages that the caller may see, and move past them. Raises
        SessionNotFound when the session was deleted, and CursorLost when the log ends before the
        cursor or the store was set back."""


@dataclass(slots=True, eq=False)
class SessionCursor:
    """A position in one session's log. `limit`, `sender` and `visibility` apply to pages only;
    shared reads are not filtered. `is_one_of_several`: whether the call has cursors by session, so
    that an error has to say which it means."""

    services: Services
    caller: Caller
    session_id: str
    position: int
    limit: int = READ_LIMIT
    sender: str | None = None
    visibility: Visibility | None = None
    is_one_of_several: bool = False
    has_more: bool = field(default=False, init=False)
    first_seq: int = field(default=1, init=False)
    """Where the log began, if a page was read from a position before that; else 1."""
    _begin: int = field(init=False)
    _known_end: int = field(default=0, init=False)
    _session: Session | None = field(default=None, init=False)  # known once something was read

    def __post_init__(self) -> None:
        self._begin = self.position

    async def read(self, news: News) -> list[Message]:
        """See Cursor. `news` may also contain events of other sessions."""
        if news.is_set_back:
            raise self._make_lost(is_beyond=False)
        newest = self._find_newest(news)
        if news.needs_resync or newest > self.position + READ_LIMIT:
            return await self._read_page()
        self.has_more = False
        return await self._read_shared(newest) if newest > self.position else []

    def skip_to_end(self) -> None:
        """Move to the end of the log as the last read knew it."""
        self.position = max(self.position, self._known_end)
        self.has_more = False

    def _find_newest(self, news: News) -> int:
        newest = 0
        for event in news.events:
            if event.session_id == self.session_id:
                if event.kind is EventKind.SESSION_DELETED:
                    raise SessionNotFound(self.session_id)
                if event.kind is EventKind.MESSAGE_ADDED:
                    newest = max(newest, event.seq or 0)
        return newest

    async def _read_shared(self, newest: int) -> list[Message]:
        reads = self.services.shared_reads
        messages = reads.find_committed(self.session_id, self.position)
        session = self._session
        if not messages or session is None:
            found = await reads.read(self.session_id, self.position)
            session, messages = found.session, found.messages
        self._require_read(session)
        if not messages:
            return await self._read_page()
        self.position = messages[-1].seq
        self._known_end = max(newest, self.position)
        self.has_more = self.position < newest
        return [message for message in messages if policy.can_see_message(self.caller, message)]

    async def _read_page(self) -> list[Message]:
        query = MessageQuery(
            limit=self.limit,
            after_seq=self.position,
            sender=self.sender,
            visibility=self.visibility,
            is_counted=False,
        )
        page = await self.services.store.messages.list_visible(
            self.session_id, self.caller, query, self._require_read
        )
        if self.position > page.last_seq:
            raise self._make_lost(is_beyond=self._begin > page.last_seq)
        if page.first_seq > self.position + 1:
            self.first_seq = page.first_seq
        self.has_more = page.has_more
        self.position = page.messages[-1].seq if page.has_more else page.last_seq
        self._known_end = page.last_seq
        return list(page.messages)

    def _make_lost(self, *, is_beyond: bool) -> CursorLost:
        if self.is_one_of_several:
            return CursorLost(
                self._begin, field="cursors", session_id=self.session_id, is_beyond=is_beyond
            )
        return CursorLost(self._begin, is_beyond=is_beyond)

    def _require_read(self, session: Session) -> None:
        policy.require_session_read(self.caller, session)
        self._session = session


@dataclass(slots=True, eq=False)
class AllSessionsCursor:
    """A position among the messages of all sessions, by message id."""

    services: Services
    caller: Caller
    position: int
    has_more: bool = field(default=False, init=False)

    async def read(self, news: News) -> list[Message]:
        """See Cursor. There are no shared reads, because ids have gaps for most callers."""
        if news.is_set_back:
            raise CursorLost(self.position, is_beyond=False)
        self.has_more = False
        if not news.needs_resync and not any(
            event.kind is EventKind.MESSAGE_ADDED for event in news.events
        ):
            return []
        page = await self.services.store.messages.list_new(
            self.caller, after_id=self.position, limit=READ_LIMIT
        )
        self.position = page.next_after_id
        self.has_more = page.has_more
        return page.messages


@dataclass(slots=True, eq=False)
class Follow:
    """Iterates over the news of a subscription until `timeout_s` has passed.

    The first news comes at once and asks for a read of what is there already, unless
    `begins_with_look` is False. With `look_again_at` news also comes at that time: for changes
    without an event, such as an expired lease. Raises Unavailable when the server is stopping, and
    Unauthenticated when the caller's token or key has ended. A caller that follows counts as
    present, unless `is_present` is False: for a person who looks at a page.
    """

    services: Services
    caller: Caller
    subscription: Subscription
    timeout_s: float = math.inf
    report_progress: ReportProgress | None = None
    begins_with_look: bool = True
    look_again_at: datetime | None = None
    is_present: bool = True
    _started_at: float = field(default_factory=time.monotonic, init=False)

    def __aiter__(self) -> Follow:
        return self

    async def __anext__(self) -> News:
        if self.begins_with_look:
            self.begins_with_look = False
            return News(needs_resync=True)
        while (left_s := self._find_left_s()) > 0:
            if self.is_present:
                self.services.presence.note_again(self.caller)
            pause_s = self._find_pause_s()
            news = await self.subscription.wait(min(pause_s, left_s))
            if news is not None:
                if news.events or news.needs_resync:
                    return news
                await self.require_current()  # woken for this alone
                continue
            if self.look_again_at is not None and self.look_again_at <= utc_now():
                return News(needs_resync=True)
            await self.require_current()
            if self.report_progress is not None and pause_s < left_s:
                await self.report_progress(time.monotonic() - self._started_at, self.timeout_s)
        raise StopAsyncIteration

    async def read(self, cursor: Cursor, news: News) -> list[Message]:
        """Read the cursor, then check that the caller's credential is still valid; return the
        messages."""
        messages = await cursor.read(news)
        await self.require_current()
        return messages

    async def require_current(self) -> None:
        """Raise Unauthenticated if the caller's token or key has ended."""
        await self.services.identity.require_current(self.caller)

    def _find_left_s(self) -> float:
        return self._started_at + self.timeout_s - time.monotonic()

    def _find_pause_s(self) -> float:
        if self.look_again_at is not None:
            until_then_s = (self.look_again_at - utc_now()).total_seconds()
            # In short steps, because the clock may be set meanwhile.
            return min(max(until_then_s, 0), PROGRESS_INTERVAL_S)
        return CHECK_INTERVAL_S if self.report_progress is None else PROGRESS_INTERVAL_S
