"""List the agents that the server has seen, and whether they are active."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from shared_context_server import policy
from shared_context_server.models import Agent, Caller, Permission
from shared_context_server.services.context import Services
from shared_context_server.services.paging import decode_moment, encode_cursor, to_microseconds
from shared_context_server.services.presence import ACTIVE_WINDOW
from shared_context_server.steady_time import utc_now


@dataclass(frozen=True, slots=True)
class AgentPresence:
    agent: Agent
    is_active: bool


@dataclass(frozen=True, slots=True)
class AgentPage:
    agents: list[AgentPresence]
    next_cursor: str | None


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
