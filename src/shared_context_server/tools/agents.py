"""Tools for agents and for the audit log."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from shared_context_server import models
from shared_context_server.models import AgentId, AgentState, Permission
from shared_context_server.services import agents, audit
from shared_context_server.services.context import Services
from shared_context_server.tools.arguments import (
    Arguments,
    Cursor,
    Instance,
    Integer,
    JsonMembers,
    Result,
    SessionId,
    Time,
    TimeArgument,
    is_false,
)
from shared_context_server.tools.registry import READS, SETS, Call, Tool


class ListAgents(Arguments):
    session_id: SessionId | None = None
    limit: Annotated[Integer, Field(ge=1, le=1000)] = 50
    cursor: Cursor | None = None


class WaitsFor(BaseModel):
    kind: Literal["messages", "lease", "task"]
    session_id: str | None
    name: str | None


class HeldItem(BaseModel):
    kind: Literal["lease"]
    session_id: str | None
    name: str
    expires_at: Time
    instance: Instance = ""


class InstanceItem(BaseModel):
    """What one thread of an agent does; also the first fields of an agent."""

    instance: Instance = ""
    state: AgentState | None
    status: Annotated[str, Field(description="Its own words; see set_status.")]
    since: Annotated[Time | None, Field(description="When it said so.")]
    last_seen: Time
    last_action: Annotated[str, Field(description="The last tool that it called.")]
    waits_for: WaitsFor | None


class AgentItem(InstanceItem):
    agent_id: str
    agent_type: str
    active: bool
    holds: list[HeldItem]
    other_instances: list[InstanceItem]


class AgentList(Result):
    agents: list[AgentItem]
    count: int
    next_cursor: str | None


class SetStatus(Arguments):
    text: Annotated[str, Field(max_length=500, description="One line; empty clears it.")]
    state: AgentState | None = None


class StatusSet(Result):
    status: str
    state: AgentState | None
    since: Time | None
    instance: Instance = ""


class GetAuditLog(Arguments):
    session_id: SessionId | None = None
    agent_id: AgentId | None = None
    event_type: Annotated[str | None, Field(max_length=64)] = None
    after: TimeArgument | None = None
    limit: Annotated[Integer, Field(ge=1, le=1000)] = 100
    cursor: Cursor | None = None
    hashes: Annotated[bool, Field(description="Add the hash chain.")] = False


class AuditItem(BaseModel):
    id: int
    timestamp: Time
    event_type: str
    agent_id: str
    session_id: str | None
    details: JsonMembers
    hash: Annotated[
        str, Field(exclude_if=is_false, description="Left out for an entry that is not chained.")
    ] = ""


class ChainEnds(BaseModel):
    """The ends of the hash chain over the audit log."""

    start_id: Annotated[int, Field(description="Entries up to it are older than the chain.")]
    anchor_id: Annotated[int, Field(description="Entries up to it were purged.")]
    anchor_hash: str
    head_id: Annotated[int, Field(description="The newest entry.")]
    head_hash: str


class AuditList(Result):
    entries: list[AuditItem]
    count: int
    next_cursor: str | None
    chain: Annotated[ChainEnds | None, Field(exclude_if=is_false)] = None


async def list_agents(services: Services, call: Call, arguments: ListAgents) -> AgentList:
    """See who else works here, in a session or anywhere: state, status, what each holds and waits
    for. active: seen in the last 5 minutes."""
    page = await agents.list_agents(
        services,
        call.caller,
        session_id=arguments.session_id,
        limit=arguments.limit,
        cursor=arguments.cursor,
    )
    names = [presence.agent.agent_id for presence in page.agents]
    found = await agents.describe_agents(services, call.caller, names)
    items = [_agent_item(presence, found[presence.agent.agent_id]) for presence in page.agents]
    return AgentList(agents=items, count=len(items), next_cursor=page.next_cursor)


def _agent_item(presence: agents.AgentPresence, activity: agents.AgentActivity) -> AgentItem:
    agent = presence.agent
    shown = [instance_fields(one) for one in activity.instances]
    newest = shown[0] if shown else dict.fromkeys(("state", "since", "waits_for"))
    return AgentItem(
        **{"status": "", "last_action": ""} | newest | {"last_seen": agent.last_seen},
        agent_id=agent.agent_id,
        agent_type=agent.agent_type,
        active=presence.is_active,
        holds=_held_items(activity),
        other_instances=[InstanceItem(**fields) for fields in shown[1:]],
    )


def instance_fields(one: models.Instance) -> dict[str, Any]:
    """Return the fields of an InstanceItem."""
    waits_for = one.waits_for
    return {
        "instance": one.instance,
        "state": one.state,
        "status": one.status,
        "since": one.since,
        "last_seen": one.last_seen,
        "last_action": one.last_action,
        "waits_for": None if waits_for is None else WaitsFor(**waits_for._asdict()),
    }


def _held_items(activity: agents.AgentActivity) -> list[HeldItem]:
    """All that an agent holds."""
    return list(map(held_item, activity.leases))


def held_item(lease: models.Lease) -> HeldItem:
    """Return a lease as its holder's."""
    return HeldItem(
        kind="lease",
        session_id=lease.session_id,
        name=lease.name,
        expires_at=lease.expires_at,
        instance=lease.instance,
    )


async def set_status(services: Services, call: Call, arguments: SetStatus) -> StatusSet:
    """Tell the other agents what you are doing when that changes; list_agents shows it."""
    stored = await agents.set_status(
        services, call.caller, status=" ".join(arguments.text.split()), state=arguments.state
    )
    return StatusSet(
        status=stored.status,
        state=stored.state,
        since=stored.since,
        instance=call.caller.instance,
    )


async def get_audit_log(services: Services, call: Call, arguments: GetAuditLog) -> AuditList:
    """Find out who did what (event_type, details), newest first. Only for admins."""
    page = await audit.get_audit_log(
        services,
        call.caller,
        session_id=arguments.session_id,
        agent_id=arguments.agent_id,
        event_type=arguments.event_type,
        start_time=arguments.after,
        limit=arguments.limit,
        cursor=arguments.cursor,
        with_chain=arguments.hashes,
    )
    items = [
        AuditItem(
            id=entry.id,
            timestamp=entry.timestamp,
            event_type=entry.event_type,
            agent_id=entry.agent_id,
            session_id=entry.session_id,
            details=entry.details,
            hash=entry.hash if arguments.hashes else "",
        )
        for entry in page.entries
    ]
    chain = None if page.chain is None else ChainEnds(**page.chain._asdict())
    return AuditList(entries=items, count=len(items), next_cursor=page.next_cursor, chain=chain)


TOOLS = (
    Tool("list_agents", ListAgents, AgentList, list_agents, Permission.READ, READS, False),
    Tool("set_status", SetStatus, StatusSet, set_status, Permission.WRITE, SETS, False),
    Tool("get_audit_log", GetAuditLog, AuditList, get_audit_log, Permission.ADMIN, READS, False),
)
