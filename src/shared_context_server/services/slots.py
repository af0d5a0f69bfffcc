"""Limit the number of open streams and waiting calls: for each agent, for each key, and in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from shared_context_server.errors import RateLimited, Unavailable
from shared_context_server.models import Caller
from shared_context_server.settings import Settings

RETRY_AFTER_S = 5
_TOTAL = "max_streams"
_Name = TypeVar("_Name", str, tuple[str, str])


class Slots:
    """The slots of one process for streams and waiting calls. One agent, or one key under many
    names, cannot take them all. `on_limited` is called with the name of each limit that is reached."""

    on_limited: Callable[[str], None] | None = None

    def __init__(self, settings: Settings) -> None:
        self._total = settings.max_streams
        self._by_agent = settings.max_streams_per_agent
        self._by_key = settings.max_streams_per_key or max(1, self._total * 3 // 4)
        self._agents: Counter[tuple[str, str]] = Counter()
        self._keys: Counter[str] = Counter()
        self._count = 0

    @contextmanager
    def take(self, caller: Caller) -> Iterator[None]:
        """Take a slot for the length of the block. Raises RateLimited when the caller has all its
        slots, and Unavailable when there are none left."""
        agent = (caller.key_id, caller.agent_id)
        if (limit := self._find_limit(agent)) is not None:
            if self.on_limited is not None:
                self.on_limited(limit)
            if limit != _TOTAL:
                raise RateLimited(
                    RETRY_AFTER_S, "You have too many open streams and waiting calls."
                )
            raise Unavailable(
                "The server has too many open streams and waiting calls.", wait_s=RETRY_AFTER_S
            )
        self._count += 1
        self._agents[agent] += 1
        self._keys[caller.key_id] += 1
        try:
            yield
        finally:
            self._count -= 1
            _subtract(self._agents, agent)
            _subtract(self._keys, caller.key_id)

    def _find_limit(self, agent: tuple[str, str]) -> str | None:
        """Return the limit that another slot of the agent would exceed."""
        if self._agents.get(agent, 0) >= self._by_agent:
            return "max_streams_per_agent"
        if self._keys.get(agent[0], 0) >= self._by_key:
            return "max_streams_per_key"
        return _TOTAL if self._count >= self._total else None


def _subtract(counts: Counter[_Name], name: _Name) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]
