"""Wait for messages: return as soon as there are messages that the caller may see (long polling)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

from shared_context_server import policy
from shared_context_server.errors import SessionNotFound
from shared_context_server.events.bus import News
from shared_context_server.models import (
    Caller,
    Event,
    EventKind,
    Message,
    SessionStatus,
    Visibility,
    Waiting,
)
from shared_context_server.services.context import Services
from shared_context_server.services.follow import Follow, ReportProgress, SessionCursor
from shared_context_server.services.late_imports import MENTIONS, import_late
from shared_context_server.services.messages import cut_page, weigh_message
from shared_context_server.services.words import Mention
from shared_context_server.storage.rules.pages import page_budget

MENTION_PAGE = 500  # messages read at once when only mentions of the caller are wanted
MAX_SESSIONS = 100  # sessions that a call names, or of which one without names reads the beginning
MAX_JOINED = 1000  # sessions in which something was written while a call without names waited
MAX_REFUSED = 10_000  # sessions remembered as not the caller's, so that each is looked up once


@dataclass(frozen=True, slots=True)
class WaitRequest:
    """The arguments of a wait. All filters must hold.

    `session_ids` None: the newest MAX_SESSIONS active sessions that the caller may read, and any
    other that gets a message meanwhile. `cursors`: the seq after which to look, by session; the
    caller's stored cursor where there is none. `include_own`: messages of the caller count too.
    `has_one`: the call names its session as `session_id`, so errors name that and `after_seq`.
    """

    session_ids: tuple[str, ...] | None
    timeout_seconds: float
    limit: int
    cursors: Mapping[str, int] = field(default_factory=dict)
    mentions_me: bool = False
    include_own: bool = False
    has_one: bool = False
    sender: str | None = None
    visibility: Visibility | None = None


@dataclass(frozen=True, slots=True)
class Waited:
    """`cursors`: where to continue, by session: in all sessions that the request names, and in those
    that have messages here or where only the caller's own messages follow. `first_seqs`: of the
    sessions whose log began after the cursor, because older messages were removed."""

    messages: list[Message]
    cursors: dict[str, int]
    timed_out: bool
    first_seqs: dict[str, int]


async def wait_for_messages(
    services: Services,
    caller: Caller,
    request: WaitRequest,
    report_progress: ReportProgress | None = None,
) -> Waited:
    """Return the messages after the cursors that pass the filters: at once if there are any, else
    when one comes; none when the time is up. Messages of several sessions are in the order of their
    ids. The stored cursors do not move.

    Raises RateLimited when the caller has too many waiting calls, Unavailable when the server is
    stopping or too many calls wait, SessionNotFound when a named session is deleted,
    Unauthenticated when the caller's token or key has ended, CursorLost when a log ends before the
    cursor or the store is set back.
    """
    if request.mentions_me:
        await import_late(MENTIONS)
    ids = request.session_ids
    only = ids[0] if ids is not None and len(ids) == 1 else None
    with (
        services.slots.take(caller),
        services.presence.wait(caller, Waiting("messages", only)),
        services.bus.subscribe(_concerns_log, session_id=only) as subscription,
    ):
        follow = Follow(services, caller, subscription, request.timeout_seconds, report_progress)
        sessions = _WaitedFor(services, caller, request, follow)
        async for news in follow:
            found = await sessions.read(news)
            if found:
                messages = cut_page(found, request.limit)
                for session_id, given in groupby(messages, attrgetter("session_id")):
                    services.mentions.clear_page(caller, session_id, list(given))
                return sessions.answer(messages, timed_out=False)
    return sessions.answer([], timed_out=True)


class _WaitedFor:
    """The sessions of a request, and what was read of them."""

    def __init__(
        self, services: Services, caller: Caller, request: WaitRequest, follow: Follow
    ) -> None:
        self._services = services
        self._caller = caller
        self._request = request
        self._follow = follow
        self._wanted = _Wanted(caller, request)
        self._cursors: dict[str, SessionCursor] = {}
        self._begins = dict(request.cursors)
        self._settled: dict[str, int] = {}  # up to here there are only the caller's own messages
        self._is_passed: set[str] = set()  # sessions with a message that a filter holds back
        self._refused: set[str] = set()

    async def read(self, news: News) -> list[Message]:
        """Return the next wanted messages of the sessions in the order of their ids, at least as many
        as a page has. Of several sessions no more than three pages are in memory at a time."""
        await self._join(news)
        found: list[Message] = []
        limit, has_several, weight = self._request.limit, len(self._cursors) > 1, 0
        for cursor in tuple(self._cursors.values()):
            try:
                read = await self._read_session(cursor, news)
            except SessionNotFound:
                self._refuse(cursor.session_id)
                continue
            found += read
            if has_several:
                weight += sum(map(weigh_message, read))
                if weight > 2 * page_budget(limit):  # what comes after a full page is not given
                    found = cut_page(sorted(found), limit)
                    weight = sum(map(weigh_message, found))
        return sorted(found) if has_several else found

    def answer(self, messages: list[Message], *, timed_out: bool) -> Waited:
        """Return these messages, and the cursors with which to continue after them."""
        given = {message.session_id: message.seq for message in messages}
        first_seqs = {
            cursor.session_id: cursor.first_seq
            for cursor in self._cursors.values()
            if cursor.first_seq > 1
        }
        begins = {
            session_id: max(seq, first_seqs.get(session_id, 1) - 1)
            for session_id, seq in self._begins.items()
        }
        return Waited(messages, begins | self._settled | given, timed_out, first_seqs)

    async def _read_session(self, cursor: SessionCursor, news: News) -> list[Message]:
        while True:
            read = await self._follow.read(cursor, news)
            self._settle(cursor.session_id, read)
            found = [message for message in read if self._wanted.accepts(message)]
            if found or not cursor.has_more:
                return found

    def _settle(self, session_id: str, read: list[Message]) -> None:
        if self._request.sender is not None or self._request.visibility is not None:
            return  # messages that were not read stand between these
        for message in read:
            if session_id in self._is_passed:
                return
            if self._wanted.is_skipped_as_own(message):
                self._settled[session_id] = message.seq
            else:
                self._is_passed.add(session_id)

    async def _join(self, news: News) -> None:
        """Add the sessions that the news may concern."""
        if self._request.session_ids is not None:
            for session_id in self._request.session_ids:
                if session_id not in self._cursors:
                    try:
                        await self._add(session_id)
                    except SessionNotFound:
                        self._refuse(session_id)
            return
        if news.needs_resync:
            await self._add_newest()
        for event in news.events:
            found = event.session_id
            if found is not None and event.kind is EventKind.MESSAGE_ADDED:
                is_known = found in self._cursors or found in self._refused
                if not is_known and len(self._cursors) < MAX_SESSIONS + MAX_JOINED:
                    await self._add_if_readable(found)

    async def _add_newest(self) -> None:
        page = await self._services.store.sessions.list_visible(
            self._caller, status=SessionStatus.ACTIVE, created_by=None, limit=MAX_SESSIONS
        )
        for summary in page.items:
            session = summary.session
            if session.id not in self._cursors:
                # Without unread messages the end of the log is where to begin.
                await self._add(session.id, None if summary.unread else session.last_seq)

    async def _add_if_readable(self, session_id: str) -> None:
        try:
            session = await self._services.store.sessions.get(session_id)
            policy.require_session_read(self._caller, session)
            await self._add(session_id)
        except SessionNotFound:
            self._refuse(session_id)

    async def _add(self, session_id: str, begin: int | None = None) -> None:
        begin = self._request.cursors.get(session_id, begin)
        if begin is None:
            begin = await self._services.store.sessions.get_cursor(
                session_id, self._caller.agent_id
            )
        if self._request.session_ids is not None:
            self._begins[session_id] = begin
        self._cursors[session_id] = SessionCursor(
            self._services,
            self._caller,
            session_id,
            begin,
            limit=MENTION_PAGE if self._request.mentions_me else self._request.limit,
            sender=self._request.sender,
            visibility=self._request.visibility,
            is_one_of_several=not self._request.has_one,
        )

    def _refuse(self, session_id: str) -> None:
        """Go on without this session. Raises SessionNotFound if the request names it."""
        if self._request.session_ids is not None:
            raise SessionNotFound(
                session_id, field="session_id" if self._request.has_one else "session_ids"
            )
        self._cursors.pop(session_id, None)
        if len(self._refused) == MAX_REFUSED:
            self._refused.clear()
        self._refused.add(session_id)


class _Wanted:
    """The filters of a request."""

    def __init__(self, caller: Caller, request: WaitRequest) -> None:
        self._caller = caller
        self._sender = request.sender
        self._visibility = request.visibility
        self._mention = Mention(caller.agent_id) if request.mentions_me else None
        self._skips_own = not request.include_own and request.sender != caller.agent_id

    def accepts(self, message: Message) -> bool:
        return (
            (self._sender is None or message.sender == self._sender)
            and (self._visibility is None or message.visibility is self._visibility)
            and (
                self._mention is None
                or self._caller.agent_id in message.recipients
                or self._mention.is_in(message.content)
            )
            and not self.is_skipped_as_own(message)
        )

    def is_skipped_as_own(self, message: Message) -> bool:
        return self._skips_own and policy.is_own_message(self._caller, message)


def _concerns_log(event: Event) -> bool:
    return event.kind in (EventKind.MESSAGE_ADDED, EventKind.SESSION_DELETED)
