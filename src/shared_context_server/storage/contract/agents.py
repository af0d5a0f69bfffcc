"""The agents that the server has seen."""

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
    """Ids of agents that have come, and of those that have gone quiet."""

    joined: list[str]
    left: list[str]


class Agents(Protocol):
    """The agents that the server has seen, and which of them are present."""

    async def touch(
        self, seen: Sequence[Agent], *, gone_before: datetime | None = None
    ) -> PresenceChange:
        """Upsert: first_seen stays, last_seen never goes backwards, the type is the latest.

        Agents not seen since `gone_before` (None: nobody is looked for) have left, those of `seen`
        that were not there have joined. Each coming and going is answered to one call only, of
        whatever process; who went unnoticed and is back has left and joined."""

    async def list_seen(
        self,
        session_id: str | None,
        caller: Caller,
        guard: SessionGuard | None,
        *,
        limit: int,
        before: tuple[datetime, str] | None = None,
    ) -> list[Agent]:
        """The first `limit` by (last_seen, agent_id), newest first, strictly older than `before`.
        With a session (and its guard): its creator, the invited and whoever has written what the
        caller may see, those the server has heard of."""

    async def find_known(self, agent_ids: Sequence[str]) -> frozenset[str]:
        """Those of the ids that the server has heard of."""

    async def is_type_known(self, agent_type: str) -> bool:
        """Whether an agent that the server has heard of is of this type. May read all of them."""
