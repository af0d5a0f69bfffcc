"""The fleet as JSON, for GET /fleet and for commands on a data dir. It is no tool: agents have
list_agents."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from shared_context_server.models import Activity, Lease
from shared_context_server.services.fleet import Fleet, FleetAgent, HeldTask
from shared_context_server.services.presence import ACTIVE_WINDOW
from shared_context_server.storage.contract import SurveyedInstance
from shared_context_server.tools.agents import HeldItem, InstanceItem, held_item, instance_fields
from shared_context_server.tools.arguments import Instance, Result, Time


class HolderItem(BaseModel):
    """The lease that somebody waits for; that of a claimed task is `task:` and its id."""

    session_id: str | None
    name: str
    holder: str
    instance: Instance = ""
    expires_at: Time


class TaskItem(BaseModel):
    session_id: str
    task_id: int
    title: str
    expires_at: Time


class FleetInstanceItem(InstanceItem):
    """`doing_since`: since when it does what `activity` says."""

    activity: Activity
    doing_since: Time
    session_id: str | None
    purpose: str | None
    blocked_by: HolderItem | None


class FleetItem(FleetInstanceItem):
    """An agent. `unread`: in its session; None if it stores no cursor there."""

    agent_id: str
    agent_type: str
    active: bool
    holds: list[HeldItem]
    tasks: list[TaskItem]
    unread: int | None
    other_instances: list[FleetInstanceItem]


class FleetPage(Result):
    """One page. `counts`: all agents by what they do."""

    agents: list[FleetItem]
    count: int
    counts: dict[Activity, int]
    is_complete: bool
    next_cursor: str | None


def describe_fleet(fleet: Fleet) -> dict[str, Any]:
    """Return a page of the fleet as JSON."""
    items = [_agent_item(agent, fleet) for agent in fleet.agents]
    page = FleetPage(
        agents=items,
        count=len(items),
        counts=dict(fleet.counts),
        is_complete=fleet.is_complete,
        next_cursor=fleet.next_cursor,
    )
    return page.model_dump(mode="json")


def _agent_item(agent: FleetAgent, fleet: Fleet) -> FleetItem:
    return FleetItem(
        **_instance_fields(agent.shown),
        agent_id=agent.agent_id,
        agent_type=agent.agent_type,
        active=fleet.now - agent.shown.instance.last_seen <= ACTIVE_WINDOW,
        holds=list(map(held_item, agent.leases)),
        tasks=[_task_item(task) for task in agent.tasks],
        unread=agent.unread,
        other_instances=[FleetInstanceItem(**_instance_fields(one)) for one in agent.others],
    )


def _instance_fields(one: SurveyedInstance) -> dict[str, Any]:
    return {
        **instance_fields(one.instance),
        "activity": one.activity,
        "doing_since": one.doing_since,
        "session_id": one.session_id,
        "purpose": one.purpose,
        "blocked_by": None if one.blocked_by is None else _holder_item(one.blocked_by),
    }


def _holder_item(lease: Lease) -> HolderItem:
    return HolderItem(
        session_id=lease.session_id,
        name=lease.name,
        holder=lease.holder,
        instance=lease.instance,
        expires_at=lease.expires_at,
    )


def _task_item(task: HeldTask) -> TaskItem:
    return TaskItem(
        session_id=task.session_id,
        task_id=task.task_id,
        title=task.title,
        expires_at=task.expires_at,
    )
