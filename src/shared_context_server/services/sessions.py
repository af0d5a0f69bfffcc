"""Sessions: create, list, read, close and delete them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from shared_context_server import policy
from shared_context_server.errors import SessionNotFound
from shared_context_server.models import (
    Access,
    AuditEntry,
    Caller,
    Event,
    EventKind,
    JsonObject,
    Message,
    Permission,
    Session,
    SessionStatus,
    SessionSummary,
)
from shared_context_server.services.context import SearchServices, Services
from shared_context_server.services.paging import (
    decode_moment,
    encode_cursor,
    to_microseconds,
)
from shared_context_server.services.quotas import Growth
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.codec import encode_json
from shared_context_server.storage.contract import MessageQuery, NewSession, SessionContents
from shared_context_server.storage.rules.pages import count_bytes

NEWEST_SHOWN = 50
LISTED_AT_ONCE = 100
PARTICIPANTS_SHOWN = 200  # list_agents pages through all of them


@dataclass(frozen=True, slots=True)
class SessionDetail:
    summary: SessionSummary
    participants: list[str]
    messages: Sequence[Message]


@dataclass(frozen=True, slots=True)
class SessionList:
    sessions: list[SessionSummary]
    next_cursor: str | None


async def create_session(
    services: Services,
    caller: Caller,
    *,
    purpose: str,
    metadata: JsonObject,
    access: Access,
    invited: Sequence[str],
) -> Session:
    """Create an active session with an unguessable id; the agents in `invited` may read it too."""
    policy.require_permission(caller, Permission.WRITE)
    names = tuple(dict.fromkeys(invited))
    if wrong := await services.identity.names.check_agent_ids(names, "participants"):
        raise wrong
    session_id = f"session_{secrets.token_hex(8)}"
    new = NewSession(
        id=session_id,
        purpose=purpose,
        metadata=metadata,
        access=access,
        created_by=caller.agent_id,
        created_at=utc_now(),
        invited=names,
    )
    audit = AuditEntry.by(caller, "session_created", session_id, {"access": access.value})
    async with services.quotas.admit(caller, None, partial(_measure_growth, new)) as errors:
        if errors:
            raise errors[0]
        session = await services.store.sessions.create(new, audit)
    services.bus.publish(Event(EventKind.SESSION_CREATED, session_id))
    return session


def _measure_growth(new: NewSession) -> Growth:
    texts = (new.purpose, encode_json(new.metadata))
    return Growth(sessions=1, bytes=sum(map(count_bytes, texts)))


async def list_sessions(
    services: SearchServices,
    caller: Caller,
    *,
    status: SessionStatus | None,
    created_by: str | None,
    limit: int,
    cursor: str | None,
) -> SessionList:
    """Return one page, newest first. next_cursor is None on the last page."""
    policy.require_permission(caller, Permission.READ)
    before = None
    if cursor is not None:
        before = decode_moment(cursor)
    page = await services.store.sessions.list_visible(
        caller, status=status, created_by=created_by, limit=limit, before=before
    )
    next_cursor = None
    if page.has_more:
        last = page.items[-1].session
        next_cursor = encode_cursor(to_microseconds(last.created_at), last.id)
    return SessionList(page.items, next_cursor)


async def list_session_ids(services: SearchServices, caller: Caller) -> AsyncIterator[str]:
    """Yield the ids of all sessions that the caller may see, newest first."""
    cursor: str | None = None
    while True:
        page = await list_sessions(
            services, caller, status=None, created_by=None, limit=LISTED_AT_ONCE, cursor=cursor
        )
        for summary in page.sessions:
            yield summary.session.id
        cursor = page.next_cursor
        if cursor is None:
            return


async def get_session(services: Services, caller: Caller, session_id: str) -> SessionDetail:
    """Return the session with its newest visible messages."""
    guard = partial(policy.require_session_read, caller)
    summary = await services.store.sessions.summarize(session_id, caller, guard)
    participants = await services.store.sessions.list_participants(
        session_id, caller, guard, limit=PARTICIPANTS_SHOWN
    )
    page = await services.store.messages.list_visible(
        session_id, caller, MessageQuery(limit=NEWEST_SHOWN), guard
    )
    services.mentions.clear_page(caller, session_id, page.messages)
    return SessionDetail(summary, participants, page.messages)


async def find_purposes(
    services: Services, caller: Caller, session_ids: Iterable[str]
) -> dict[str, str]:
    """Return the purposes of these sessions by id, of those that the caller may see."""
    policy.require_permission(caller, Permission.READ)

    async def find(session_id: str) -> Session | None:
        try:
            return await services.store.sessions.get(session_id)
        except SessionNotFound:
            return None

    found = await asyncio.gather(*(find(one) for one in dict.fromkeys(session_ids)))
    return {
        session.id: session.purpose
        for session in found
        if session is not None and policy.can_see_session(caller, session)
    }


async def close_session(services: Services, caller: Caller, session_id: str) -> Session:
    """Make the session read-only. Closing it again changes nothing."""
    session = await services.store.sessions.close(
        session_id,
        utc_now(),
        partial(policy.require_session_control, caller),
        AuditEntry.by(caller, "session_closed", session_id),
    )
    services.bus.publish(Event(EventKind.SESSION_CLOSED, session_id))
    return session


async def preview_deletion(services: Services, caller: Caller, session_id: str) -> SessionContents:
    """Return how much delete_session would remove now, also of what the caller may not see. Raises the
    same errors."""
    return await services.store.sessions.measure(
        session_id, partial(policy.require_session_control, caller), now=utc_now()
    )


async def delete_session(services: Services, caller: Caller, session_id: str) -> None:
    """Delete the session and all its data except the audit log."""
    await services.store.sessions.delete(
        session_id,
        partial(policy.require_session_control, caller),
        AuditEntry.by(caller, "session_deleted", session_id),
    )
    services.mentions.forget_session(session_id)
    services.bus.publish(Event(EventKind.SESSION_DELETED, session_id))
