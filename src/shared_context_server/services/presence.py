"""Who has been heard of lately: noted on every call, written down now and then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from shared_context_server.models import Agent, Caller
from shared_context_server.storage import Storage

ACTIVE_WINDOW = timedelta(minutes=5)
FLUSH_INTERVAL_S = 5.0


class Presence:
    """The agents seen by this process since the last flush.

    `note` costs a dictionary write; the store is told by `flush`, which the server runs
    every FLUSH_INTERVAL_S and before it lists agents.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._seen: dict[str, Agent] = {}

    def note(self, caller: Caller) -> None:
        """Remember that this caller has just called."""
        now = datetime.now(UTC)
        self._seen[caller.agent_id] = Agent(caller.agent_id, caller.agent_type, now, now)

    async def flush(self) -> None:
        """Write down what was noted; what could not be written is kept for the next time."""
        if not self._seen:
            return
        seen, self._seen = self._seen, {}
        try:
            await self._storage.touch_agents(list(seen.values()))
        except BaseException:
            self._seen = seen | self._seen
            raise
