"""The list of sessions."""

from __future__ import annotations

from starlette.responses import Response

from shared_context_server.models import EventKind, SessionStatus
from shared_context_server.services import sessions
from shared_context_server.ui.live import change_stream
from shared_context_server.ui.page import Page, PageRequest
from shared_context_server.ui.queries import read_choice

EVENTS_PATH = "/events/sessions"
PAGE_SIZE = 50
STATUSES = {"active": SessionStatus.ACTIVE, "closed": SessionStatus.CLOSED, "all": None}


async def show_sessions(page: PageRequest) -> Response:
    """A page of the sessions that the caller may see, newest first."""
    chosen = read_choice(page.query, "status", STATUSES, "active")
    found = await sessions.list_sessions(
        page.services,
        page.caller,
        status=STATUSES[chosen],
        created_by=page.query.get("created_by") or None,
        limit=PAGE_SIZE,
        cursor=page.query.get("cursor") or None,
    )
    return page.render(
        "sessions.html",
        sessions=found.sessions,
        next_cursor=found.next_cursor,
        status=chosen,
        created_by=page.query.get("created_by", ""),
        is_later="cursor" in page.query,
        live=page.address(EVENTS_PATH),
    )


PAGES = (
    Page("/sessions", show_sessions),
    change_stream(
        EVENTS_PATH,
        (
            EventKind.MESSAGE_ADDED,
            EventKind.SESSION_CREATED,
            EventKind.SESSION_CLOSED,
            EventKind.SESSION_DELETED,
        ),
    ),
)
