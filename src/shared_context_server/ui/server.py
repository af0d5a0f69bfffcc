"""The server itself, for admins: version, store, workers, and the metrics of the last hour."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

from starlette.responses import Response

from shared_context_server import __version__
from shared_context_server.errors import SharedContextError
from shared_context_server.models import Permission
from shared_context_server.observability.history import Calls, add_up
from shared_context_server.services.presence import ACTIVE_WINDOW
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.contract import StoreStats
from shared_context_server.ui.charts import make_charts
from shared_context_server.ui.live import LiveResponse, signal_changes
from shared_context_server.ui.page import Page, PageRequest

EVENTS_PATH = "/events/server"
TICK_S = 15.0
_WAITING_ARGUMENTS = frozenset({"timeout_seconds", "wait_seconds"})


@dataclass(frozen=True, slots=True)
class ToolRow:
    """The calls of one tool in the last hour. Times in milliseconds."""

    tool: str
    count: int
    errors: int
    p50_ms: float
    p95_ms: float

    @classmethod
    def of(cls, tool: str, calls: Calls) -> ToolRow:
        p50, p95 = calls.quantile_s(0.5) or 0.0, calls.quantile_s(0.95) or 0.0
        return cls(tool, calls.count, calls.errors, p50 * 1000, p95 * 1000)


async def show_server(page: PageRequest) -> Response:
    """What the process that answers knows of itself and its store."""
    services = page.services
    now = utc_now()
    last_hour = services.history.show(now)
    tools = [ToolRow.of(tool, calls) for tool, calls in last_hour.by_tool().items()]
    waiting = _find_waiting_tools(page)
    tools.sort(key=lambda row: (-row.count, row.tool))
    return page.render(
        "server.html",
        version=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        process=os.getpid(),
        host=platform.node(),
        workers=services.settings.workers,
        store=services.settings.storage_url.partition(":")[0],
        since=last_hour.since,
        stats=await _find_stats(page),
        waiters=services.bus.subscriber_count,
        total=add_up(minute.total() for minute in last_hour.minutes),
        timed=ToolRow.of("", add_up(minute.total(waiting) for minute in last_hour.minutes)),
        waiting_tools=sorted(waiting),
        charts=make_charts(last_hour, waiting),
        tools=tools,
        live=page.address(EVENTS_PATH),
    )


def _find_waiting_tools(page: PageRequest) -> frozenset[str]:
    """Return the tools whose callers may ask to wait."""
    return frozenset(
        name
        for name, tool in page.dispatcher.tools.items()
        if not _WAITING_ARGUMENTS.isdisjoint(tool.arguments.model_fields)
    )


async def _find_stats(page: PageRequest) -> StoreStats | None:
    """Return the figures of the store; None if it does not answer."""
    try:
        return await page.services.store.maintenance.get_stats(
            active_since=utc_now() - ACTIVE_WINDOW
        )
    except SharedContextError:
        return None


async def follow_server(page: PageRequest) -> Response:
    """Tell the page to look again after each sample."""
    return LiveResponse(page, signal_changes(page.services, page.caller, (), tick_s=TICK_S))


PAGES = (
    Page("/server", show_server, permission=Permission.ADMIN),
    Page(EVENTS_PATH, follow_server, permission=Permission.ADMIN),
)
