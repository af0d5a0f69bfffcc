"""The page of one session: its live log with filters, a timeline, and single messages."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from sse_starlette import ServerSentEvent
from starlette.responses import Response

from shared_context_server import overseer, policy
from shared_context_server.errors import MessageNotFound
from shared_context_server.models import EventKind, Message, SessionStatus, SessionSummary
from shared_context_server.services import feeds, session_log
from shared_context_server.services.session_log import LogFilter
from shared_context_server.ui.live import REFRESH, SIGNED_OUT, LiveResponse, make_end, make_event
from shared_context_server.ui.log_filters import SINCE, read_filter, read_number
from shared_context_server.ui.messages import view_message, view_messages
from shared_context_server.ui.page import Page, PageRequest
from shared_context_server.ui.queries import read_choice
from shared_context_server.ui.timeline import SPANS, USUAL_SPAN, choose_span, make_timeline

SESSION_PATH = "/sessions/{session_id}"
EVENTS_PATH = "/events/sessions/{session_id}"
PAGE_SIZE = 50
PARTICIPANTS_SHOWN = 100
KINDS = ("decision", "question", "overseer", "task", "reply", "needs-ack")
"""Suggestions; any other kind may be typed."""
_ENDS = {
    EventKind.SESSION_CLOSED: "Closed",
    EventKind.SESSION_DELETED: "Deleted",
    EventKind.LOG_SET_BACK: "Reload the page",
    EventKind.CREDENTIAL_ENDED: SIGNED_OUT,
}


async def get_summary(page: PageRequest, session_id: str) -> SessionSummary:
    """Return the session with what the caller may count. Raises SessionNotFound."""
    guard = partial(policy.require_session_read, page.caller)
    return await page.services.store.sessions.summarize(session_id, page.caller, guard)


async def show_session(page: PageRequest) -> Response:
    """The newest messages that match the address, or those before a seq."""
    session_id = page.path_param("session_id")
    services, caller = page.services, page.caller
    chosen = read_filter(page.query)
    before_seq = read_number(page.query, "before")
    summary = await get_summary(page, session_id)
    usual_span = choose_span(summary.session.created_at, summary.last_activity)
    span = read_choice(page.query, "span", SPANS, usual_span)
    participants = await services.store.sessions.list_participants(
        session_id,
        caller,
        partial(policy.require_session_read, caller),
        limit=PARTICIPANTS_SHOWN,
    )
    log = await session_log.read_page(
        services, caller, session_id, chosen.log, before_seq=before_seq, limit=PAGE_SIZE
    )
    parents = await session_log.find_parents(services, caller, log.messages)
    is_live = before_seq is None and summary.session.status is SessionStatus.ACTIVE
    path = f"/sessions/{session_id}"
    return page.render(
        "session.html",
        summary=summary,
        session=summary.session,
        participants=participants,
        messages=view_messages(log.messages, parents),
        log=log,
        given=chosen.given,
        is_filtered=bool(chosen.given),
        before=before_seq,
        path=path,
        older=None
        if log.older_before is None
        else page.address(path, **chosen.given, before=log.older_before),
        is_live=is_live,
        live=page.address(f"/events{path}", **chosen.given, after=log.last_seq)
        if is_live
        else None,
        live_events="message",
        since_options=[("", "Any time"), *((name, label) for name, (label, _) in SINCE.items())],
        kinds=KINDS,
        overseer_kinds=overseer.KINDS,
        may_write=_may_post(page, summary),
        may_control=caller.is_admin or caller.agent_id == summary.session.created_by,
        timeline_address=page.address(f"{path}/timeline", span=span),
        post_key=secrets.token_hex(16),
        problem=None,
        sent_seq=None,
        given_post=empty_post(page.query.get("reply_to", "")),
    )


def empty_post(reply_to: str = "") -> dict[str, str]:
    """Return the fields of the form to post with, before anything is written."""
    return {"reply_to": reply_to, "kind": "", "to": "", "private": "", "content": ""}


def _may_post(page: PageRequest, summary: SessionSummary) -> bool:
    """Whether the caller may post: to be shown the form."""
    is_active = summary.session.status is SessionStatus.ACTIVE
    return is_active and ("write" in page.caller.permissions or page.caller.is_admin)


async def show_timeline(page: PageRequest) -> Response:
    """The timeline, which the page of the session loads when it is looked at."""
    session_id = page.path_param("session_id")
    span = read_choice(page.query, "span", SPANS, USUAL_SPAN)
    timeline = await make_timeline(page.services, page.caller, session_id, span)
    path = f"/sessions/{session_id}"
    return page.render(
        "timeline.html",
        timeline=timeline,
        path=path,
        spans=[
            (label, page.address(f"{path}/timeline", span=name), name == timeline.span)
            for name, (label, _) in SPANS.items()
        ],
    )


async def show_message(page: PageRequest) -> Response:
    """One message with all of its content: as a page, or as what replaces the shortened one."""
    session_id = page.path_param("session_id")
    number = read_number(page.request.path_params, "message_id")
    if number is None:
        raise MessageNotFound(0)
    services, caller = page.services, page.caller
    message = await session_log.get_message(services, caller, session_id, number)
    parents = await session_log.find_parents(services, caller, [message])
    view = view_message(message, parents, is_whole=True)
    path = f"/sessions/{session_id}"
    if page.is_fragment:
        return page.render("message.html", view=view, path=path)
    summary = await get_summary(page, session_id)
    return page.render("message_page.html", view=view, session=summary.session, path=path)


async def follow_session(page: PageRequest) -> Response:
    """The stream of a session: each new message that matches the address, as HTML."""
    session_id = page.path_param("session_id")
    chosen = read_filter(page.query)
    last_id = page.request.headers.get("last-event-id")
    after_seq = read_number({"after": last_id} if last_id else page.query, "after")
    feed = await feeds.open_session_feed(page.services, page.caller, session_id, after_seq)
    session = await page.services.store.sessions.get(session_id)
    if session.status is SessionStatus.CLOSED:  # while the page had no stream
        return LiveResponse(page, _end(EventKind.SESSION_CLOSED))
    return LiveResponse(page, _stream(page, feed, chosen.log))


async def _end(kind: EventKind) -> AsyncGenerator[ServerSentEvent]:
    yield make_end(_ENDS[kind])


async def _stream(
    page: PageRequest, feed: feeds.SessionFeed, wanted: LogFilter
) -> AsyncGenerator[ServerSentEvent]:
    items = feeds.stream(page.services, page.caller, feed, is_present=False)
    async with aclosing(items):
        async for item in items:
            if isinstance(item, Message):
                if wanted.matches(item):
                    yield await _render_event(page, item)
            elif item.kind in _ENDS:
                yield make_end(_ENDS[item.kind])
            else:
                yield make_event("", event=REFRESH)


async def _render_event(page: PageRequest, message: Message) -> ServerSentEvent:
    parents = await session_log.find_parents(page.services, page.caller, [message])
    html = page.render_text(
        "message.html",
        view=view_message(message, parents),
        path=f"/sessions/{message.session_id}",
    )
    return make_event(html, event="message", id=str(message.seq))


PAGES = (
    Page(SESSION_PATH, show_session),
    Page(SESSION_PATH + "/timeline", show_timeline),
    Page(SESSION_PATH + "/messages/{message_id}", show_message),
    Page(EVENTS_PATH, follow_session),
)
