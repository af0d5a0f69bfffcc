"""Let some work at once and the others wait for their turns, which go from caller to caller."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared_context_server.models import Caller

_Agent = tuple[str, str]


class Turns:
    """The turns of one process. A caller with many requests waits for itself: the next turn is that
    of another caller, if one waits. For the tasks of one loop."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: dict[_Agent, deque[asyncio.Future[None]]] = {}  # in the order of the turns

    @asynccontextmanager
    async def take(self, caller: Caller) -> AsyncIterator[None]:
        """Wait for a turn, and have it for the length of the block."""
        if self._free:
            self._free -= 1
        else:
            await self._wait((caller.key_id, caller.agent_id))
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, agent: _Agent) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(agent, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it came at the same moment
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """Give a turn that is free to the next caller who still waits."""
        while self._waiting:
            agent = next(iter(self._waiting))
            turns = self._waiting.pop(agent)
            turn = turns.popleft()
            if turns:
                self._waiting[agent] = turns
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
