"""Presence: remember which agents have called lately and what they wait for, and write it to the
store at intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import count
from typing import TypeAlias

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
_Noted: TypeAlias = tuple[str, int, str, str | None]

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
        # By agent and instance: type, microseconds since the epoch, tool, session.
        self._seen: dict[tuple[str, str], _Noted] = {}
        self._waiting: dict[tuple[str, str], dict[int, tuple[Waiting, int]]] = {}
        self._numbers = count()

    def note(self, caller: Caller, action: str, session_id: str | None = None) -> int:
        """Remember that this caller has just called this tool, for this session if it names one.
        Return the time, in microseconds since the epoch."""
        key = caller.agent_id, caller.instance
        if len(self._seen) >= MAX_NOTED and key not in self._seen:
            key = caller.agent_id, ""
        if session_id is None and key in self._seen:
            session_id = self._seen[key][3]
        now_us = MACHINE_CLOCK.now_us()
        self._seen[key] = caller.agent_type, now_us, action, session_id
        return now_us

    def list_noted(self) -> frozenset[str]:
        """Return the ids of agents that have called since the last flush."""
        return frozenset(agent_id for agent_id, _ in self._seen)

    def note_again(self, caller: Caller) -> datetime:
        """Remember that this caller's call still runs. Return the time with which that is written."""
        seen = self._seen.get((caller.agent_id, caller.instance))
        return to_datetime(self.note(caller, "" if seen is None else seen[2]))

    @contextmanager
    def wait(self, caller: Caller, waits_for: Waiting) -> Iterator[Callable[[Waiting], None]]:
        """Show for the length of the block that this caller waits. Of several waiting calls of an
        instance the newest is shown. Yields a function that shows something else from then on."""
        key, number = (caller.agent_id, caller.instance), next(self._numbers)
        waiting = self._waiting.setdefault(key, {})
        began_us = MACHINE_CLOCK.now_us()

        def show(waits_for: Waiting) -> None:
            waiting[number] = waits_for, began_us

        show(waits_for)
        try:
            yield show
        finally:
            del waiting[number]
            if not waiting:
                self._waiting.pop(key, None)
            self.note_again(caller)  # so that the end is written too

    async def flush(self) -> None:
        """Write the noted agents to the store. What cannot be written is kept for the next time."""
        seen, self._seen = self._seen, {}
        agents: dict[str, tuple[str, int]] = {}
        for (agent_id, _), (agent_type, seen_us, _, _) in seen.items():
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

    def _make_instance(
        self, key: tuple[str, str], seen_us: int, action: str, session_id: str | None
    ) -> InstanceSeen:
        seen_at = to_datetime(seen_us)
        waiting = self._waiting.get(key)
        if not waiting:
            return InstanceSeen(*key, seen_at, action, None, None, session_id)
        waits_for, since_us = next(reversed(waiting.values()))
        return InstanceSeen(*key, seen_at, action, waits_for, to_datetime(since_us), session_id)


def _make_agent(agent_id: str, agent_type: str, seen_us: int) -> Agent:
    seen_at = to_datetime(seen_us)
    return Agent(agent_id, agent_type, seen_at, seen_at)
