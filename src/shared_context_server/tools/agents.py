"""Tools for agents and for the audit log."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from shared_context_server.models import AgentId, Permission
from shared_context_server.services import agents, audit
from shared_context_server.services.context import Services
from shared_context_server.tools.arguments import (
    Arguments,
    Cursor,
    Integer,
    JsonMembers,
    Result,
    SessionId,
    Time,
    TimeArgument,
)
from shared_context_server.tools.registry import READS, Call, Tool


class ListAgents(Arguments):
    session_id: SessionId | None = None
    limit: Annotated[Integer, Field(ge=1, le=1000)] = 50
    cursor: Cursor | None = None


class AgentItem(BaseModel):
    agent_id: str
    agent_type: str
    last_seen: Time
    active: bool


class AgentList(Result):
    agents: list[AgentItem]
    count: int
    next_cursor: str | None


class GetAuditLog(Arguments):
    session_id: SessionId | None = None
    agent_id: AgentId | None = None
    event_type: Annotated[str | None, Field(max_length=64)] = None
    after: TimeArgument | None = None
    limit: Annotated[Integer, Field(ge=1, le=1000)] = 100
    cursor: Cursor | None = None


class AuditItem(BaseModel):
    id: int
    timestamp: Time
    event_type: str
    agent_id: str
    session_id: str | None
    details: JsonMembers


class AuditList(Result):
    entries: list[AuditItem]
    count: int
    next_cursor: str | None


async def list_agents(services: Services, call: Call, arguments: ListAgents) -> AgentList:
    """List the agents of a session, or all; active means seen in the last 5 minutes."""
    page = await agents.list_agents(
        services,
        call.caller,
        session_id=arguments.session_id,
        limit=arguments.limit,
        cursor=arguments.cursor,
    )
    items = [
        AgentItem(
            agent_id=presence.agent.agent_id,
            agent_type=presence.agent.agent_type,
            last_seen=presence.agent.last_seen,
            active=presence.is_active,
        )
        for presence in page.agents
    ]
    return AgentList(agents=items, count=len(items), next_cursor=page.next_cursor)


async def get_audit_log(services: Services, call: Call, arguments: GetAuditLog) -> AuditList:
    """List who did what, newest first. Only for admins."""
    page = await audit.get_audit_log(
        services,
        call.caller,
        session_id=arguments.session_id,
        agent_id=arguments.agent_id,
        event_type=arguments.event_type,
        start_time=arguments.after,
        limit=arguments.limit,
        cursor=arguments.cursor,
    )
    items = [
        AuditItem(
            id=entry.id,
            timestamp=entry.timestamp,
            event_type=entry.event_type,
            agent_id=entry.agent_id,
            session_id=entry.session_id,
            details=entry.details,
        )
        for entry in page.entries
    ]
    return AuditList(entries=items, count=len(items), next_cursor=page.next_cursor)


TOOLS = (
    Tool("list_agents", ListAgents, AgentList, list_agents, Permission.READ, READS, False),
    Tool("get_audit_log", GetAuditLog, AuditList, get_audit_log, Permission.ADMIN, READS, False),
)
