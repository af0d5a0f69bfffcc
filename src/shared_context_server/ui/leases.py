"""The leases that are held now, and who waits for them."""

from __future__ import annotations

from starlette.responses import Response

from shared_context_server.models import EventKind
from shared_context_server.services.fleet import get_fleet
from shared_context_server.services.leases import list_leases, list_visible_leases
from shared_context_server.services.sessions import find_purposes
from shared_context_server.ui.live import change_stream
from shared_context_server.ui.page import Page, PageRequest
from shared_context_server.ui.queries import read_text
from shared_context_server.ui.wait_drawing import draw

EVENTS_PATH = "/events/leases"
PAGE_SIZE = 100


async def show_leases(page: PageRequest) -> Response:
    """The leases of the whole server and of all sessions that the caller may see, or of one session,
    and all waits for leases and claims."""
    session_id = read_text(page, "session_id")
    cursor = page.query.get("cursor") or None
    if session_id:
        held = await list_leases(
            page.services, page.caller, session_id, limit=PAGE_SIZE, cursor=cursor
        )
    else:
        held = await list_visible_leases(page.services, page.caller, limit=PAGE_SIZE, cursor=cursor)
    graph = (await get_fleet(page.services, page.caller, limit=1)).graph
    waits = [one for one in graph.waits if session_id in ("", one.session_id)]
    ids = {one.session_id for one in held.leases if one.session_id is not None}
    return page.render(
        "leases.html",
        purposes=await find_purposes(page.services, page.caller, sorted(ids)),
        leases=held.leases,
        next_cursor=held.next_cursor,
        session_id=session_id,
        is_later=cursor is not None,
        waits=waits,
        deadlocks=graph.deadlocks,
        drawing=None if session_id else draw(graph),
        live=page.address(EVENTS_PATH),
    )


PAGES = (
    Page("/leases", show_leases),
    change_stream(EVENTS_PATH, (EventKind.LEASE_CHANGED, EventKind.SESSION_DELETED), tick_s=10.0),
)
