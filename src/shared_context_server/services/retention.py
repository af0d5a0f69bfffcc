"""Delete sessions in which nothing has happened for SESSION_RETENTION_DAYS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

from shared_context_server.models import AuditEntry, Event, EventKind
from shared_context_server.services.context import Services
from shared_context_server.steady_time import utc_now

EXAMINED_AT_ONCE = 200  # sessions of one read: some milliseconds
EXPIRED = "session_expired"
BY_THE_SERVER = ""  # in the audit log, where no agent has done it


async def delete_idle_sessions(services: Services) -> AsyncIterator[str]:
    """Delete the idle sessions one by one, open and closed ones; yield the id of each.

    The contract of the store says what counts as idle. Several processes may do this at once: each
    session is deleted, recorded and yielded by one of them. Nothing happens without the setting.
    """
    days = services.settings.session_retention_days
    if days is None:
        return
    idle_since = utc_now() - timedelta(days=days)
    after = None
    while True:
        page = await services.store.sessions.examine_idle(
            idle_since, limit=EXAMINED_AT_ONCE, after=after
        )
        for session_id in page.idle:
            audit = AuditEntry(EXPIRED, BY_THE_SERVER, session_id, {"retention_days": days})
            if await services.store.sessions.delete_idle(session_id, idle_since, audit):
                services.bus.publish(Event(EventKind.SESSION_DELETED, session_id))
                yield session_id
        after = page.next_after
        if after is None:
            return
