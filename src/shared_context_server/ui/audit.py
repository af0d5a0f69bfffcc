"""The audit log, for admins."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.responses import Response

from shared_context_server.errors import InvalidArgument
from shared_context_server.models import Permission
from shared_context_server.services.audit import get_audit_log
from shared_context_server.ui.page import Page, PageRequest
from shared_context_server.ui.queries import read_text

PAGE_SIZE = 100
FILTERS = ("event_type", "agent_id", "session_id", "after")


async def show_audit(page: PageRequest) -> Response:
    """One page of the entries that match the filters, newest first."""
    filters = {name: read_text(page, name) for name in FILTERS}
    found = await get_audit_log(
        page.services,
        page.caller,
        session_id=filters["session_id"] or None,
        agent_id=filters["agent_id"] or None,
        event_type=filters["event_type"] or None,
        start_time=_parse_time(filters["after"]),
        limit=PAGE_SIZE,
        cursor=page.query.get("cursor") or None,
    )
    return page.render(
        "audit.html",
        entries=found.entries,
        next_cursor=found.next_cursor,
        filters=filters,
        has_filters=any(filters.values()),
        is_later="cursor" in page.query,
    )


def _parse_time(text: str) -> datetime | None:
    """Return the time of a field; without a zone it is UTC. Raises InvalidArgument."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise InvalidArgument(
            "after is not a time.",
            field="after",
            suggestion="Write it as 2026-03-01T12:00, in UTC.",
        ) from exc
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


PAGES = (Page("/audit", show_audit, permission=Permission.ADMIN),)
