"""The fleet, which is the first page: what every agent does, and who waits for whom."""

from __future__ import annotations

from starlette.responses import Response

from shared_context_server.models import Activity, EventKind
from shared_context_server.services.fleet import FleetAgent, get_fleet
from shared_context_server.ui.live import LiveResponse, signal_changes
from shared_context_server.ui.page import Page, PageRequest
from shared_context_server.ui.queries import read_choice, read_text
from shared_context_server.ui.wait_drawing import draw

EVENTS_PATH = "/events/fleet"
PAGE_SIZE = 50
MAX_SEARCHED_CHARS = 128
# A look at ten thousand agents takes a tenth of a second of processor time.
REFRESH_INTERVAL_S = 3.0
TICK_S = 10.0  # silence and the end of a lease have no event
_ORDER = list(Activity)
_ACTIVITIES = {activity.value: activity for activity in Activity}


async def show_fleet(page: PageRequest) -> Response:
    """One page of the agents: blocked and silent ones first."""
    activity = _ACTIVITIES.get(read_choice(page.query, "activity", _ACTIVITIES, ""))
    searched = read_text(page, "q", MAX_SEARCHED_CHARS)
    fleet = await get_fleet(
        page.services,
        page.caller,
        activity=activity,
        contains=searched,
        limit=PAGE_SIZE,
        cursor=page.query.get("cursor") or None,
    )
    return page.render(
        "fleet.html",
        fleet=fleet,
        agents=sorted(fleet.agents, key=_listing_key),
        total=sum(fleet.counts.values()),
        activity=activity,
        searched=searched,
        is_later="cursor" in page.query,
        drawing=draw(fleet.graph),
        live=page.address(EVENTS_PATH),
    )


def _listing_key(agent: FleetAgent) -> tuple[int, str]:
    """Return the place of an agent on its page: within what it does by its id, so that rows stay where
    they are while the page is looked at. Which agents a page has depends on when they were seen."""
    return _ORDER.index(agent.activity), agent.agent_id


async def follow_fleet(page: PageRequest) -> Response:
    """Tell the page to look again."""
    kinds = (
        EventKind.LEASE_CHANGED,
        EventKind.AGENT_JOINED,
        EventKind.AGENT_LEFT,
        EventKind.MESSAGE_ADDED,
        EventKind.SESSION_DELETED,
    )
    events = signal_changes(
        page.services, page.caller, kinds, interval_s=REFRESH_INTERVAL_S, tick_s=TICK_S
    )
    return LiveResponse(page, events)


PAGES = (Page("", show_fleet), Page(EVENTS_PATH, follow_fleet))
