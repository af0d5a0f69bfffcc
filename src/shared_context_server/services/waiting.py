"""Waiting for messages: asked once, answered when there is something the caller may see."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from shared_context_server import policy
from shared_context_server.errors import CursorLost
from shared_context_server.events.bus import Subscription
from shared_context_server.models import Caller, Event, EventKind, Message, Visibility
from shared_context_server.services.context import Services
from shared_context_server.services.late_imports import MENTIONS, import_late
from shared_context_server.services.messages import cut_page
from shared_context_server.services.shared_reads import READ_STEP
from shared_context_server.services.words import Mention
from shared_context_server.storage.contract import MessageQuery

PROGRESS_INTERVAL_S = 5.0  # far below the 30 to 60 s after which proxies cut what is silent

ReportProgress = Callable[[float, float], Awaitable[None]]
"""Tells a caller who asked for it that the call is alive: seconds waited, seconds at most."""


@dataclass(frozen=True, slots=True)
class WaitRequest:
    """`after_seq` None: the caller's stored cursor. The filters must all hold."""

    session_id: str
    after_seq: int | None
    timeout_seconds: float
    limit: int
    mentions_me: bool = False
    sender: str | None = None
    visibility: Visibility | None = None


@dataclass(frozen=True, slots=True)
class Waited:
    messages: list[Message]
    next_after_seq: int
    timed_out: bool


async def wait_for_messages(
    services: Services,
    caller: Caller,
    request: WaitRequest,
    report_progress: ReportProgress | None = None,
) -> Waited:
    """Messages behind the cursor that pass the filters, at once if there are any, else when one
    comes; none when the time is up. Does not move the stored cursor.

    Raises RateLimited when the caller waits too often at once, Unavailable when the server is
    stopping or too many wait, SessionNotFound when the session is deleted, Unauthenticated when the
    caller's token or key has ended meanwhile, CursorLost when the log ends before the cursor, or the
    store is set back meanwhile.
    """
    if request.mentions_me:
        await import_late(MENTIONS)
    after_seq = request.after_seq
    if after_seq is None:
        after_seq = await services.store.sessions.get_cursor(request.session_id, caller.agent_id)
    loop = asyncio.get_running_loop()
    started = loop.time()
    # Subscribed before the first look, so that what is committed in between is heard of.
    with (
        services.slots.take(caller),
        services.bus.subscribe(_concerns_log, session_id=request.session_id) as subscription,
    ):
        watch = _Watch(services, caller, request, after_seq)
        await watch.look()
        while not watch.found:
            left_s = started + request.timeout_seconds - loop.time()
            if left_s <= 0:
                break
            events = await subscription.wait(min(left_s, PROGRESS_INTERVAL_S))
            if subscription.was_set_back:
                raise CursorLost(after_seq, is_beyond=False)
            if events or subscription.has_missed:
                await watch.catch_up(events, subscription)
                # After the read: a token revoked before it must not see what it found.
                await services.identity.require_current(caller)
            elif report_progress is not None and left_s > PROGRESS_INTERVAL_S:
                await report_progress(loop.time() - started, request.timeout_seconds)
    found = cut_page(watch.found, request.limit)
    return Waited(found, found[-1].seq if found else after_seq, not found)


class _Watch:
    """How far one waiter has looked, and what it has found."""

    def __init__(
        self, services: Services, caller: Caller, request: WaitRequest, after_seq: int
    ) -> None:
        self._services = services
        self._caller = caller
        self._request = request
        self._mention = Mention(caller.agent_id) if request.mentions_me else None
        self._after_seq = self._looked_up_to = after_seq
        self.found: list[Message] = []

    async def look(self) -> None:
        """Go through what is there already, under the caller's rights."""
        request = self._request
        guard = partial(policy.require_session_read, self._caller)
        has_more = True
        while has_more and not self.found:
            query = MessageQuery(
                limit=READ_STEP if self._mention else request.limit,
                after_seq=self._looked_up_to,
                sender=request.sender,
                visibility=request.visibility,
                is_counted=False,
            )
            page = await self._services.store.messages.list_visible(
                request.session_id, self._caller, query, guard
            )
            if self._looked_up_to > page.last_seq:
                raise CursorLost(self._after_seq, is_beyond=self._after_seq > page.last_seq)
            self.found = [message for message in page.messages if self._is_wanted(message)]
            has_more = page.has_more
            read_up_to = page.messages[-1].seq if has_more else page.last_seq
            self._looked_up_to = max(self._looked_up_to, read_up_to)

    async def catch_up(self, events: list[Event], subscription: Subscription) -> None:
        """Go through what the events tell of."""
        if subscription.take_missed() or any(
            event.kind is not EventKind.MESSAGE_ADDED for event in events
        ):
            await self.look()
            return
        newest = max((event.seq or 0 for event in events), default=0)
        while self._looked_up_to < newest and not self.found:
            piece = await self._services.shared_reads.read(
                self._request.session_id, self._looked_up_to
            )
            policy.require_session_read(self._caller, piece.session)
            if not piece.messages:
                return
            self.found = [message for message in piece.messages if self._is_wanted(message)]
            self._looked_up_to = piece.messages[-1].seq

    def _is_wanted(self, message: Message) -> bool:
        request = self._request
        return (
            policy.can_see_message(self._caller, message)
            and (request.sender is None or message.sender == request.sender)
            and (request.visibility is None or message.visibility is request.visibility)
            and (self._mention is None or self._is_mentioned(message, self._mention))
        )

    def _is_mentioned(self, message: Message, mention: Mention) -> bool:
        return self._caller.agent_id in message.recipients or mention.is_in(message.content)


def _concerns_log(event: Event) -> bool:
    return event.kind in (
        EventKind.MESSAGE_ADDED,
        EventKind.SESSION_CLOSED,
        EventKind.SESSION_DELETED,
    )
