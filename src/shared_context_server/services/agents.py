"""Who is around, and the audit trail."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial

from shared_context_server import policy
from shared_context_server.models import Agent, AuditEntry, Caller, Permission
from shared_context_server.services.context import Services
from shared_context_server.services.presence import ACTIVE_WINDOW
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.base import AuditQuery


@dataclass(frozen=True, slots=True)
class AgentPresence:
    agent: Agent
    is_active: bool


async def list_agents(
    services: Services, caller: Caller, session_id: str | None
) -> list[AgentPresence]:
    """The agents of a session, or all that the server has heard of; newest sign of life first."""
    policy.require(caller, Permission.READ)
    await services.presence.flush()
    guard = None if session_id is None else partial(policy.require_session_read, caller)
    agents = await services.storage.list_agents(session_id, guard)
    since = utc_now() - ACTIVE_WINDOW
    return [AgentPresence(agent, agent.last_seen >= since) for agent in agents]


async def get_audit_log(
    services: Services,
    caller: Caller,
    *,
    session_id: str | None,
    agent_id: str | None,
    event_type: str | None,
    after: datetime | None,
    limit: int,
) -> list[AuditEntry]:
    """What operators account with, newest first; for admins."""
    policy.require(caller, Permission.ADMIN)
    return await services.storage.list_audit(
        AuditQuery(
            limit=limit,
            session_id=session_id,
            agent_id=agent_id,
            event_type=event_type,
            start_time=after,
        )
    )
