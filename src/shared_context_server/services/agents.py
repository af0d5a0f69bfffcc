"""List the agents that the server has seen, what they do, hold and wait for; set one's own status."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from shared_context_server import policy
from shared_context_server.models import (
    Agent,
    AgentState,
    Caller,
    Instance,
    Lease,
    Permission,
)
from shared_context_server.services.context import Services
from shared_context_server.services.follow import CHECK_INTERVAL_S
from shared_context_server.services.paging import decode_moment, encode_cursor, to_microseconds
from shared_context_server.services.presence import ACTIVE_WINDOW, FLUSH_INTERVAL_S
from shared_context_server.steady_time import utc_now

# A waiting call is noted at least every CHECK_INTERVAL_S, and written FLUSH_INTERVAL_S later at most. So
# one that is older ended with its process.
WAITS_SHOWN_FOR = timedelta(seconds=CHECK_INTERVAL_S + 3 * FLUSH_INTERVAL_S)


@dataclass(frozen=True, slots=True)
class AgentPresence:
    agent: Agent
    is_active: bool


@dataclass(frozen=True, slots=True)
class AgentPage:
    agents: list[AgentPresence]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class AgentActivity:
    """What an agent does: its instances, the last seen first, and the leases that it holds."""

    instances: list[Instance]
    leases: list[Lease]


@dataclass(frozen=True, slots=True)
class OwnStatus:
    status: str
    state: AgentState | None
    since: datetime | None


async def list_agents(
    services: Services,
    caller: Caller,
    *,
    session_id: str | None,
    limit: int,
    cursor: str | None,
) -> AgentPage:
    """Return one page of a session's agents, or of all agents, the last seen first. An agent that
    is seen between two pages moves to the first one."""
    policy.require_permission(caller, Permission.READ)
    await services.presence.flush()
    guard = None if session_id is None else partial(policy.require_session_read, caller)
    before = None if cursor is None else decode_moment(cursor)
    found = await services.store.agents.list_seen(
        session_id, caller, guard, limit=limit + 1, before=before
    )
    page = found[:limit]
    next_cursor = None
    if len(found) > limit:
        next_cursor = encode_cursor(to_microseconds(page[-1].last_seen), page[-1].agent_id)
    since = utc_now() - ACTIVE_WINDOW
    return AgentPage([AgentPresence(one, one.last_seen >= since) for one in page], next_cursor)


async def describe_agents(
    services: Services, caller: Caller, agent_ids: Sequence[str]
) -> dict[str, AgentActivity]:
    """Return what these agents do, by id, as far as the caller may know of it."""
    policy.require_permission(caller, Permission.READ)
    now = utc_now()
    instances: defaultdict[str, list[Instance]] = defaultdict(list)
    for one in await services.store.agents.list_instances(agent_ids, caller):
        if one.waits_for is not None and one.last_seen < now - WAITS_SHOWN_FOR:
            one = replace(one, waits_for=None, waits_since=None)
        instances[one.agent_id].append(one)
    leases: defaultdict[str, list[Lease]] = defaultdict(list)
    for lease in await services.store.leases.list_of_holders(agent_ids, caller, now=now):
        leases[lease.holder].append(lease)
    return {name: AgentActivity(instances[name], leases[name]) for name in agent_ids}


async def set_status(
    services: Services, caller: Caller, *, status: str, state: AgentState | None
) -> OwnStatus:
    """Store what the caller says of itself, which everyone with read permission sees. An empty status
    without a state clears it."""
    policy.require_permission(caller, Permission.WRITE)
    # With a time of its own the status would be newer than the call, and the store would leave out what
    # else is noted of the call, such as that the caller does not wait any more.
    now = services.presence.note_again(caller)
    since = await services.store.agents.set_status(caller, status=status, state=state, now=now)
    return OwnStatus(status, state, since)
