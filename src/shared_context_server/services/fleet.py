"""The overview of all agents: what each does, holds, waits for and has not read, and who waits for whom.

What an agent does follows from what the server knows (see models.Activity). Silent is one that was not
heard of for SILENT_FACTOR times its usual pause between two signs of life, but at least SILENT_MIN and
at most SILENT_MAX; after AWAY_AFTER it is away.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared_context_server import policy
from shared_context_server.models import Activity, Caller, Lease, Permission, Visibility
from shared_context_server.services.agents import WAITS_SHOWN_FOR
from shared_context_server.services.context import Services
from shared_context_server.services.paging import decode_cursor, encode_cursor
from shared_context_server.services.presence import ACTIVE_WINDOW
from shared_context_server.services.wait_graph import WaitGraph, make_wait_graph
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.contract import (
    SurveyedAgent,
    SurveyedInstance,
    SurveyQuery,
    UnreadIn,
)
from shared_context_server.storage.rules.audience import audience_key
from shared_context_server.storage.rules.tasks import find_task_id

SILENT_FACTOR = 4
SILENT_MIN = ACTIVE_WINDOW
SILENT_MAX = timedelta(minutes=30)
AWAY_AFTER = timedelta(hours=1)
DEFAULT_LISTED = 50


@dataclass(frozen=True, slots=True)
class HeldTask:
    """A task that an agent has claimed, until `expires_at`."""

    session_id: str
    task_id: int
    title: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class FleetAgent:
    """One agent. `shown`: the instance that tells what the agent does: the first one with the agent's
    activity. `others`: its other instances, the last seen first. `session_id` and `purpose`: the
    session that it works in, None if it named none or the caller may not see that. `unread`: the
    messages of others that follow its stored cursor there, as far as the caller may know of them; None
    if it stores no cursor."""

    agent_id: str
    agent_type: str
    activity: Activity
    shown: SurveyedInstance
    others: list[SurveyedInstance]
    session_id: str | None
    purpose: str | None
    tasks: list[HeldTask]
    leases: list[Lease]
    unread: int | None


@dataclass(frozen=True, slots=True)
class Fleet:
    """One page of the agents, and the numbers of all by what they do. `is_complete` False: there are
    more instances than one survey looks at, and the numbers are those of the last seen."""

    now: datetime
    counts: Mapping[Activity, int]
    agents: list[FleetAgent]
    next_cursor: str | None
    graph: WaitGraph
    is_complete: bool


async def get_fleet(
    services: Services,
    caller: Caller,
    *,
    activity: Activity | None = None,
    contains: str = "",
    limit: int = DEFAULT_LISTED,
    cursor: str | None = None,
) -> Fleet:
    """Return one page of the agents that were seen within the last day: blocked and silent ones first.
    `contains`: literally in the agent's id or status."""
    policy.require_permission(caller, Permission.READ)
    await services.presence.flush()
    now = utc_now()
    offset = 0 if cursor is None else int(str(decode_cursor(cursor, int)[0]))
    survey = await services.store.fleet.survey(
        caller,
        SurveyQuery(
            now=now,
            waits_after=now - WAITS_SHOWN_FOR,
            away_before=now - AWAY_AFTER,
            silent_factor=SILENT_FACTOR,
            silent_min=SILENT_MIN,
            silent_max=SILENT_MAX,
            limit=limit,
            offset=offset,
            activity=activity,
            contains=contains,
        ),
    )
    agents = await _describe(services, caller, survey.agents, now)
    return Fleet(
        now=now,
        counts=survey.counts,
        agents=agents,
        next_cursor=encode_cursor(offset + limit) if survey.has_more else None,
        graph=make_wait_graph(survey.blocks),
        is_complete=survey.is_complete,
    )


async def _describe(
    services: Services, caller: Caller, agents: Sequence[SurveyedAgent], now: datetime
) -> list[FleetAgent]:
    store = services.store
    names = [one.agent_id for one in agents]
    leases: defaultdict[str, list[Lease]] = defaultdict(list)
    for lease in await store.leases.list_of_holders(names, caller, now=now):
        leases[lease.holder].append(lease)
    claimed = [
        (lease.session_id, task_id)
        for held in leases.values()
        for lease in held
        if lease.session_id is not None and (task_id := find_task_id(lease)) is not None
    ]
    titles = await store.fleet.list_task_titles(claimed) if claimed else {}
    shown = {one.agent_id: _find_shown(one) for one in agents}
    asked = [_ask_unread(caller, instance) for instance in shown.values()]
    unread = await store.fleet.count_unread([one for one in asked if one is not None])
    return [
        _to_fleet_agent(one, shown[one.agent_id], leases[one.agent_id], titles, unread)
        for one in agents
    ]


def _find_shown(agent: SurveyedAgent) -> SurveyedInstance:
    return next(one for one in agent.instances if one.activity is agent.activity)


def _ask_unread(caller: Caller, one: SurveyedInstance) -> UnreadIn | None:
    """Return the question for the messages to this agent that the caller may know of."""
    if one.session_id is None:
        return None
    agent_id, agent_type = one.instance.agent_id, one.agent_type
    names = tuple(
        audience_key(agent_id, agent_type, visibility)
        for visibility in (Visibility.PUBLIC, Visibility.AGENT_ONLY, Visibility.PRIVATE)
        if policy.can_count_unread(caller, agent_id, agent_type, visibility)
    )
    return UnreadIn(one.session_id, agent_id, names)


def _to_fleet_agent(
    agent: SurveyedAgent,
    shown: SurveyedInstance,
    held: Sequence[Lease],
    titles: Mapping[tuple[str, int], str],
    unread: Mapping[tuple[str, str], int],
) -> FleetAgent:
    tasks, leases = [], []
    for lease in held:
        task_id = find_task_id(lease)
        title = None if task_id is None else titles.get((lease.session_id or "", task_id))
        if lease.session_id is None or task_id is None or title is None:
            leases.append(lease)
        else:
            tasks.append(HeldTask(lease.session_id, task_id, title, lease.expires_at))
    return FleetAgent(
        agent_id=agent.agent_id,
        agent_type=shown.agent_type,
        activity=agent.activity,
        shown=shown,
        others=[one for one in agent.instances if one is not shown],
        session_id=shown.session_id,
        purpose=shown.purpose,
        tasks=tasks,
        leases=leases,
        unread=unread.get((shown.session_id or "", agent.agent_id)),
    )
