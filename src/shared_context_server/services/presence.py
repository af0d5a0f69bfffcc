"""Presence: remember which agents have called lately and what they wait for, and write it to the
store at intervals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count

from shared_context_server.events.bus import Bus
from shared_context_server.models import (
    Agent,
    Caller,
    Event,
    EventKind,
    InstanceSeen,
    Waiting,
)
from shared_context_server.steady_time import MACHINE_CLOCK, to_datetime, utc_now
from shared_context_server.storage import Store

ACTIVE_WINDOW = timedelta(minutes=5)
FLUSH_INTERVAL_S = 5.0
# Another process may have seen an agent and not have written it to the store yet.
GONE_AFTER = ACTIVE_WINDOW + timedelta(seconds=2 * FLUSH_INTERVAL_S)
FORGOTTEN_AFTER = timedelta(days=1)  # an instance, with its status
MAX_NOTED = 10_000  # instances between two flushes; further ones count as calls without a thread


class Presence:
    """The agents seen by this process since the last flush, with their instances.

    `note` costs a dictionary write. `flush` writes to the store; the server calls it every
    FLUSH_INTERVAL_S and before it lists agents. An agent joins when it is first seen, or seen again
    after it left. It leaves when it was not seen for GONE_AFTER. Of all processes that share the
    store, one publishes each of these events.
    """

    def __init__(self, store: Store, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        # By agent and instance: type, microseconds since the epoch, tool.
        self._seen: dict[tuple[str, str], tuple[str, int, str]] = {}
        self._waiting: dict[tuple[str, str], dict[int, Waiting]] = {}
        self._numbers = count()

    def note(self, caller: Caller, action: str) -> None:
        """Remember that this caller has just called this tool."""
        key = caller.agent_id, caller.instance
        if len(self._seen) >= MAX_NOTED and key not in self._seen:
            key = caller.agent_id, ""
        self._seen[key] = caller.agent_type, MACHINE_CLOCK.now_us(), action

    def list_noted(self) -> frozenset[str]:
        """Return the ids of agents that have called since the last flush."""
        return frozenset(agent_id for agent_id, _ in self._seen)

    def note_waiting(self, caller: Caller) -> None:
        """Remember that this caller still follows or waits."""
        seen = self._seen.get((caller.agent_id, caller.instance))
        self.note(caller, "" if seen is None else seen[2])

    @contextmanager
    def wait(self, caller: Caller, waits_for: Waiting) -> Iterator[None]:
        """Show for the length of the block that this caller waits. Of several waiting calls of an
        instance the newest is shown."""
        key, number = (caller.agent_id, caller.instance), next(self._numbers)
        waiting = self._waiting.setdefault(key, {})
        waiting[number] = waits_for
        try:
            yield
        finally:
            del waiting[number]
            if not waiting:
                self._waiting.pop(key, None)
            self.note_waiting(caller)  # so that the end is written too

    async def flush(self) -> None:
        """Write the noted agents to the store. What cannot be written is kept for the next time."""
        seen, self._seen = self._seen, {}
        agents: dict[str, tuple[str, int]] = {}
        for (agent_id, _), (agent_type, seen_us, _) in seen.items():
            if agent_id not in agents or agents[agent_id][1] <= seen_us:
                agents[agent_id] = agent_type, seen_us
        now = utc_now()
        try:
            change = await self._store.agents.touch(
                [_make_agent(name, *what) for name, what in agents.items()],
                gone_before=now - GONE_AFTER,
            )
            await self._store.agents.note_instances(
                [self._make_instance(key, *what[1:]) for key, what in seen.items()],
                forget_before=now - FORGOTTEN_AFTER,
            )
        except BaseException:
            self._seen = seen | self._seen
            raise
        for agent_id in change.left:
            self._bus.publish(Event(EventKind.AGENT_LEFT, agent_id=agent_id))
        for agent_id in change.joined:
            self._bus.publish(Event(EventKind.AGENT_JOINED, agent_id=agent_id))

    def _make_instance(self, key: tuple[str, str], seen_us: int, action: str) -> InstanceSeen:
        waiting = self._waiting.get(key)
        waits_for = next(reversed(waiting.values())) if waiting else None
        return InstanceSeen(*key, to_datetime(seen_us), action, waits_for)


def _make_agent(agent_id: str, agent_type: str, seen_us: int) -> Agent:
    seen_at = to_datetime(seen_us)
    return Agent(agent_id, agent_type, seen_at, seen_at)
