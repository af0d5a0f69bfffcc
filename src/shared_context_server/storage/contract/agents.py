"""The port for agents that the server has seen, and for their presence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shared_context_server.models import (
    Agent,
    Caller,
)
from shared_context_server.storage.contract.sessions import SessionGuard


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

    async def is_type_known(self, agent_type: str) -> bool:
        """Whether the server has seen an agent of this type. May read all agents."""
