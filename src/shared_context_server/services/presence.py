"""Presence: remember which agents have called lately, and write it to the store at intervals."""

from __future__ import annotations

from datetime import timedelta

from shared_context_server.events.bus import Bus
from shared_context_server.models import Agent, Caller, Event, EventKind
from shared_context_server.steady_time import MACHINE_CLOCK, to_datetime, utc_now
from shared_context_server.storage import Store

ACTIVE_WINDOW = timedelta(minutes=5)
FLUSH_INTERVAL_S = 5.0
# Another process may have seen an agent and not have written it to the store yet.
GONE_AFTER = ACTIVE_WINDOW + timedelta(seconds=2 * FLUSH_INTERVAL_S)


class Presence:
    """The agents seen by this process since the last flush.

    `note` costs a dictionary write. `flush` writes to the store; the server calls it every
    FLUSH_INTERVAL_S and before it lists agents. An agent joins when it is first seen, or seen again
    after it left. It leaves when it was not seen for GONE_AFTER. Of all processes that share the
    store, one publishes each of these events.
    """

    def __init__(self, store: Store, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        self._seen: dict[str, tuple[str, int]] = {}  # type, microseconds since the epoch

    def note(self, caller: Caller) -> None:
        """Remember that this caller has just called."""
        self._seen[caller.agent_id] = caller.agent_type, MACHINE_CLOCK.now_us()

    async def flush(self) -> None:
        """Write the noted agents to the store. What cannot be written is kept for the next time."""
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
