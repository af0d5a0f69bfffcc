"""Delete sessions in which nothing has happened for SESSION_RETENTION_DAYS, and remove messages that
are older than MESSAGE_RETENTION_DAYS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from shared_context_server.errors import SessionNotFound
from shared_context_server.models import AuditEntry, Event, EventKind, JsonObject
from shared_context_server.services.context import Services
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.contract import AuditExpiry, ExaminedSessions

EXAMINED_AT_ONCE = 200  # sessions of one read: some milliseconds
EXPIRED = "session_expired"
MESSAGES_EXPIRED = "messages_expired"
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
    async for session_id in _list_found(services.store.sessions.examine_idle, idle_since):
        audit = AuditEntry(EXPIRED, BY_THE_SERVER, session_id, {"retention_days": days})
        if await services.store.sessions.delete_idle(session_id, idle_since, audit):
            services.bus.publish(Event(EventKind.SESSION_DELETED, session_id))
            yield session_id


async def remove_old_messages(services: Services) -> AsyncIterator[tuple[str, int]]:
    """Remove the old messages at the beginning of each session, step by step; yield the session and
    the number of messages of each step.

    The contract of the store says what is removed, and that several processes may do this at once.
    Nothing happens without the setting.
    """
    days = services.settings.message_retention_days
    if days is None:
        return
    expired_before = utc_now() - timedelta(days=days)
    async for session_id in _list_found(services.store.expiry.examine, expired_before):
        audit: AuditExpiry | None = partial(_audit_messages, session_id, days)
        has_more = True
        while has_more:
            step = await services.store.expiry.remove_some(session_id, expired_before, audit)
            if step.removed:
                yield session_id, step.removed
            audit, has_more = None, step.has_more
        await _tell_of_removed(services, session_id)


class _Examine(Protocol):
    """Examines one page of sessions; see examine_idle of the store's sessions."""

    async def __call__(
        self, before: datetime, /, *, limit: int, after: tuple[datetime, str] | None = None
    ) -> ExaminedSessions: ...


async def _list_found(examine: _Examine, before: datetime) -> AsyncIterator[str]:
    """Yield the sessions that one or more examinations find, page by page."""
    after = None
    while True:
        page = await examine(before, limit=EXAMINED_AT_ONCE, after=after)
        for session_id in page.idle:
            yield session_id
        after = page.next_after
        if after is None:
            return


def _audit_messages(session_id: str, days: int, first_seq: int, last_seq: int) -> AuditEntry:
    details: JsonObject = {
        "retention_days": days,
        "first_seq": first_seq,
        "last_seq": last_seq,
        "messages": last_seq - first_seq + 1,
    }
    return AuditEntry(MESSAGES_EXPIRED, BY_THE_SERVER, session_id, details)


async def _tell_of_removed(services: Services, session_id: str) -> None:
    with suppress(SessionNotFound):
        session = await services.store.sessions.get(session_id)
        services.bus.publish(Event(EventKind.MESSAGES_EXPIRED, session_id, seq=session.first_seq))
