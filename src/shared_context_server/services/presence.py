"""Who has been heard of lately: noted on every call, written down now and then."""

from __future__ import annotations

from datetime import timedelta

from shared_context_server.events.bus import Bus
from shared_context_server.models import Agent, Caller, Event, EventKind
from shared_context_server.steady_time import utc_now
from shared_context_server.storage import Store

ACTIVE_WINDOW = timedelta(minutes=5)
FLUSH_INTERVAL_S = 5.0
# Another process may have heard of an agent and not have written it down yet.
GONE_AFTER = ACTIVE_WINDOW + timedelta(seconds=2 * FLUSH_INTERVAL_S)


class Presence:
    """The agents seen by this process since the last flush.

    `note` costs a dictionary write; the store is told by `flush`, which the server runs
    every FLUSH_INTERVAL_S and before it lists agents. Of all processes that share the store one
    publishes that an agent has come, when it is heard of first or after it had gone, and one that
    it has gone, when it has not been heard of for GONE_AFTER.
    """

    def __init__(self, store: Store, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        self._seen: dict[str, Agent] = {}

    def note(self, caller: Caller) -> None:
        """Remember that this caller has just called."""
        now = utc_now()
        self._seen[caller.agent_id] = Agent(caller.agent_id, caller.agent_type, now, now)

    async def flush(self) -> None:
        """Write down what was noted; what could not be written is kept for the next time."""
        seen, self._seen = self._seen, {}
        try:
            change = await self._store.agents.touch(
                list(seen.values()), gone_before=utc_now() - GONE_AFTER
            )
        except BaseException:
            self._seen = seen | self._seen
            raise
        for agent_id in change.left:
            self._bus.publish(Event(EventKind.AGENT_LEFT, agent_id=agent_id))
        for agent_id in change.joined:
            self._bus.publish(Event(EventKind.AGENT_JOINED, agent_id=agent_id))
