"""The port for agents that the server has seen, and for their presence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from shared_context_server.models import (
    Agent,
    AgentState,
    Caller,
    Instance,
    InstanceSeen,
)
from shared_context_server.storage.contract.sessions import SessionGuard
from shared_context_server.storage.contract.usage import Usage

MAX_PAUSE = timedelta(minutes=15)
"""So much of a pause counts for the usual one, so that one long pause does not hide the next."""

MAX_INSTANCES = 32
"""As many instances of one agent are kept. Clients choose their names, so there could be any number."""


@dataclass(frozen=True, slots=True)
class PresenceChange:
    """The ids of agents that have joined, and of those that have left."""

    joined: list[str]
    left: list[str]


class Agents(Protocol):
    """The agents that the server has seen, and which of them are present."""

    async def touch(
        self, seen: Sequence[Agent], *, gone_before: datetime | None = None
    ) -> PresenceChange:
        """Upsert agents: first_seen stays, last_seen never goes backwards, the type is the latest.

        Agents not seen since `gone_before` have left (None: not checked). Agents of `seen` that
        were away have joined. Each joining and leaving is returned to one call only, of whatever
        process. An agent that was away unnoticed and is back has left and joined.
        """

    async def list_seen(
        self,
        session_id: str | None,
        caller: Caller,
        guard: SessionGuard | None,
        *,
        limit: int,
        before: tuple[datetime, str] | None = None,
    ) -> list[Agent]:
        """Return the first `limit` agents by (last_seen, agent_id), newest first, strictly older
        than `before`. With a session (and its guard): those of its creator, the invited and the
        writers of messages that the caller may see which the server has seen."""

    async def find_known(self, agent_ids: Sequence[str]) -> frozenset[str]:
        """Return those of the ids that the server has seen."""

    async def note_instances(
        self, seen: Sequence[InstanceSeen], *, forget_before: datetime
    ) -> None:
        """Store what these instances did last; each is in `seen` once. last_seen never goes
        backwards, and an empty action or no session leaves the last one. waits_since stays while an
        instance waits for the same. The usual pause of an instance is a moving average of the times
        between two calls of this method that tell of it, each of which counts up to MAX_PAUSE. Forgets instances that were last seen before
        `forget_before`, and of each agent in `seen` all but the MAX_INSTANCES last seen."""

    async def set_status(
        self, caller: Caller, *, status: str, state: AgentState | None, now: datetime
    ) -> datetime | None:
        """Store what the caller's instance says of itself; an empty status and no state clear it.
        Return since when it says so: `now`, or earlier if it says the same again, None if cleared."""

    async def list_instances(self, agent_ids: Sequence[str], caller: Caller) -> list[Instance]:
        """Return the instances of these agents, the last seen first. `waits_for` is left out where it
        names a session that the caller may not see."""

    async def measure_usage(self, agent_id: str) -> Usage:
        """Return how much the agent has stored, in all sessions and outside of them. The cost is that of
        the number of sessions in which it has."""

    async def is_type_known(self, agent_type: str) -> bool:
        """Whether the server has seen an agent of this type. May read all agents."""
