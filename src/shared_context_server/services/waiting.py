"""Wait for messages: return as soon as there are messages that the caller may see (long polling)."""

from __future__ import annotations

from dataclasses import dataclass

from shared_context_server.models import (
    Caller,
    Event,
    EventKind,
    Message,
    Visibility,
    Waiting,
)
from shared_context_server.services.context import Services
from shared_context_server.services.follow import Follow, ReportProgress, SessionCursor
from shared_context_server.services.late_imports import MENTIONS, import_late
from shared_context_server.services.messages import cut_page
from shared_context_server.services.words import Mention

MENTION_PAGE = 500  # messages read at once when only mentions of the caller are wanted


@dataclass(frozen=True, slots=True)
class WaitRequest:
    """The arguments of a wait. `after_seq` None: the caller's stored cursor. All filters must hold."""

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
    """Return the messages after the cursor that pass the filters: at once if there are any, else
    when one comes; none when the time is up. The stored cursor does not move.

    Raises RateLimited when the caller has too many waiting calls, Unavailable when the server is
    stopping or too many calls wait, SessionNotFound when the session is deleted, Unauthenticated
    when the caller's token or key has ended, CursorLost when the log ends before the cursor or the
    store is set back.
    """
    if request.mentions_me:
        await import_late(MENTIONS)
    after_seq = request.after_seq
    if after_seq is None:
        after_seq = await services.store.sessions.get_cursor(request.session_id, caller.agent_id)
    wanted = _Wanted(caller, request)
    cursor = SessionCursor(
        services,
        caller,
        request.session_id,
        after_seq,
        limit=MENTION_PAGE if request.mentions_me else request.limit,
        sender=request.sender,
        visibility=request.visibility,
    )
    with (
        services.slots.take(caller),
        services.presence.wait(caller, Waiting("messages", request.session_id)),
        services.bus.subscribe(_concerns_log, session_id=request.session_id) as subscription,
    ):
        follow = Follow(services, caller, subscription, request.timeout_seconds, report_progress)
        async for news in follow:
            while True:
                read = await follow.read(cursor, news)
                found = cut_page([m for m in read if wanted.accepts(m)], request.limit)
                if found:
                    services.mentions.clear_page(caller, request.session_id, found)
                    return Waited(found, found[-1].seq, timed_out=False)
                if not cursor.has_more:
                    break
    return Waited([], after_seq, timed_out=True)


class _Wanted:
    """The filters of a request."""

    def __init__(self, caller: Caller, request: WaitRequest) -> None:
        self._agent_id = caller.agent_id
        self._sender = request.sender
        self._visibility = request.visibility
        self._mention = Mention(caller.agent_id) if request.mentions_me else None

    def accepts(self, message: Message) -> bool:
        return (
            (self._sender is None or message.sender == self._sender)
            and (self._visibility is None or message.visibility is self._visibility)
            and (
                self._mention is None
                or self._agent_id in message.recipients
                or self._mention.is_in(message.content)
            )
        )


def _concerns_log(event: Event) -> bool:
    return event.kind in (EventKind.MESSAGE_ADDED, EventKind.SESSION_DELETED)
