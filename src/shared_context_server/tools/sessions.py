"""Tools for sessions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from shared_context_server.models import (
    Access,
    AgentId,
    Permission,
    SessionStatus,
    SessionSummary,
)
from shared_context_server.services import sessions
from shared_context_server.services.context import Services
from shared_context_server.tools.arguments import (
    AgentIds,
    Arguments,
    Cursor,
    FirstSeq,
    Integer,
    JsonMembers,
    Metadata,
    Result,
    SessionId,
    Time,
)
from shared_context_server.tools.messages import MessageItem
from shared_context_server.tools.registry import ADDS, READS, REMOVES, SETS, Call, Tool
from shared_context_server.tools.written import Written, write_result

MAX_PURPOSE_CHARS = 500


class CreateSession(Arguments):
    purpose: Annotated[str, Field(min_length=1, max_length=MAX_PURPOSE_CHARS)]
    metadata: Metadata = Field(default_factory=dict)
    access: Annotated[Access, Field(description="invited: you, participants, admins.")] = (
        Access.OPEN
    )
    participants: AgentIds = Field(default_factory=list)


class CreatedSession(Result):
    session_id: str
    created_by: str
    created_at: Time


class ListSessions(Arguments):
    status: Literal["active", "closed", "all"] = "active"
    limit: Annotated[Integer, Field(ge=1, le=200)] = 50
    cursor: Cursor | None = None
    created_by: AgentId | None = None


class SessionItem(BaseModel):
    """A session as the caller sees it."""

    session_id: str
    purpose: str
    metadata: JsonMembers
    access: Access
    status: SessionStatus
    created_by: str
    created_at: Time
    closed_at: Time | None
    message_count: int
    unread: int
    last_activity: Time
    first_seq: FirstSeq = 1


class SessionPage(Result):
    sessions: list[SessionItem]
    next_cursor: str | None


class OneSession(Arguments):
    session_id: SessionId


class SessionDetails(Result):
    session: SessionItem
    participants: list[str]
    message_count: int
    messages: list[MessageItem]


class ClosedSession(Result):
    session_id: str
    status: SessionStatus
    closed_at: Time | None


class DeletedSession(Result):
    session_id: str
    deleted: bool


def session_item(summary: SessionSummary) -> SessionItem:
    """Return a session as every surface shows it."""
    session = summary.session
    return SessionItem(
        session_id=session.id,
        purpose=session.purpose,
        metadata=session.metadata,
        access=session.access,
        status=session.status,
        created_by=session.created_by,
        created_at=session.created_at,
        closed_at=session.closed_at,
        message_count=summary.message_count,
        unread=summary.unread,
        last_activity=summary.last_activity,
        first_seq=session.first_seq,
    )


def session_details(detail: sessions.SessionDetail) -> Written[SessionDetails]:
    """Return the answer of get_session, which is also the resource session://{id}."""
    result = SessionDetails(
        session=session_item(detail.summary),
        participants=detail.participants,
        message_count=detail.summary.message_count,
        messages=[],
    )
    return write_result(result, detail.messages)


async def create_session(
    services: Services, call: Call, arguments: CreateSession
) -> CreatedSession:
    """Start a session, a shared log of messages, if list_sessions has none that fits. Give its
    session_id to the other agents."""
    session = await sessions.create_session(
        services,
        call.caller,
        purpose=arguments.purpose,
        metadata=arguments.metadata,
        access=arguments.access,
        invited=arguments.participants,
    )
    return CreatedSession(
        session_id=session.id, created_by=session.created_by, created_at=session.created_at
    )


async def list_sessions(services: Services, call: Call, arguments: ListSessions) -> SessionPage:
    """Find a session to work in: those you may read, newest first, with purpose, status,
    message_count and your unread count."""
    status = None if arguments.status == "all" else SessionStatus(arguments.status)
    page = await sessions.list_sessions(
        services,
        call.caller,
        status=status,
        created_by=arguments.created_by,
        limit=arguments.limit,
        cursor=arguments.cursor,
    )
    return SessionPage(
        sessions=[session_item(summary) for summary in page.sessions],
        next_cursor=page.next_cursor,
    )


async def get_session(
    services: Services, call: Call, arguments: OneSession
) -> Written[SessionDetails]:
    """Look into one session: its purpose, participants and the 50 newest messages you may see."""
    return session_details(await sessions.get_session(services, call.caller, arguments.session_id))


async def close_session(services: Services, call: Call, arguments: OneSession) -> ClosedSession:
    """Make a session read-only when its work is done. Only for its creator and admins."""
    session = await sessions.close_session(services, call.caller, arguments.session_id)
    return ClosedSession(session_id=session.id, status=session.status, closed_at=session.closed_at)


async def delete_session(services: Services, call: Call, arguments: OneSession) -> DeletedSession:
    """Delete a session with its messages and memory permanently; close_session keeps them. Only for
    its creator and admins."""
    await sessions.delete_session(services, call.caller, arguments.session_id)
    return DeletedSession(session_id=arguments.session_id, deleted=True)


TOOLS = (
    Tool("create_session", CreateSession, CreatedSession, create_session, Permission.WRITE, ADDS),
    Tool("list_sessions", ListSessions, SessionPage, list_sessions, Permission.READ, READS),
    Tool("get_session", OneSession, SessionDetails, get_session, Permission.READ, READS),
    Tool("close_session", OneSession, ClosedSession, close_session, Permission.WRITE, SETS),
    Tool("delete_session", OneSession, DeletedSession, delete_session, Permission.WRITE, REMOVES),
)
