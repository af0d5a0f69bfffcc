"""Who has been heard of lately: noted on every call, written down now and then."""

from __future__ import annotations

from datetime import timedelta

from shared_context_server.events.bus import Bus
from shared_context_server.models import Agent, Caller, Event, EventKind
from shared_context_server.steady_time import MACHINE_CLOCK, to_datetime, utc_now
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
        self._seen: dict[str, tuple[str, int]] = {}  # type, microseconds since the epoch

    def note(self, caller: Caller) -> None:
        """Remember that this caller has just called."""
        self._seen[caller.agent_id] = caller.agent_type, MACHINE_CLOCK.now_us()

    async def flush(self) -> None:
        """Write down what was noted; what could not be written is kept for the next time."""
        seen, self._seen = self._seen, {}
        try:
            change = await self._store.agents.touch(
                [_make_agent(name, *what) for name, what in seen.items()],
                gone_before=utc_now() - GONE_AFTER,
            )
        except BaseException:
            self._seen = seen | self._seen
            raise
        for agent_id in change.left:
            self._bus.publish(Event(EventKind.AGENT_LEFT, agent_id=agent_id))
        for agent_id in change.joined:
            self._bus.publish(Event(EventKind.AGENT_JOINED, agent_id=agent_id))


def _make_agent(agent_id: str, agent_type: str, seen_us: int) -> Agent:
    seen_at = to_datetime(seen_us)
    return Agent(agent_id, agent_type, seen_at, seen_at)
