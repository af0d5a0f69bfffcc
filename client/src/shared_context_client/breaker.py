"""A circuit breaker: whoever does not answer is left in peace for a while."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from enum import StrEnum

from shared_context_client.errors import CircuitOpen
from shared_context_client.options import Breaker

PROBE_S = 2.0  # for a sign of life
RETRY_SOON_S = 0.2  # somebody else is looking just now


class State(StrEnum):
    """CLOSED: calls are made. OPEN: they fail at once. HALF_OPEN: one looks whether it is back."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


OnStateChange = Callable[[State, State], None]
"""Called with the old and the new state, on the client's loop; it must not block."""


class CircuitBreaker:
    """For the tasks of one loop."""

    def __init__(self, options: Breaker, on_change: OnStateChange | None = None) -> None:
        self._options = options
        self._on_change = on_change
        self._failures = 0
        self._open_s = options.open_s
        self._opens_until = 0.0
        self.state = State.CLOSED

    async def admit(self, probe: Callable[[], Awaitable[bool]]) -> None:
        """Let a call through, or raise CircuitOpen with retry_after_s. The first one after
        the pause awaits `probe`, which says whether the server gives a sign of life."""
        if self.state is State.CLOSED:
            return
        wait_s = self._opens_until - time.monotonic()
        if self.state is State.HALF_OPEN or wait_s > 0:
            raise self._unavailable(max(wait_s, RETRY_SOON_S))
        self._change(State.HALF_OPEN)
        is_back = None
        try:
            is_back = await probe()
        finally:
            if is_back is None:  # cancelled: the next one looks
                self._change(State.OPEN)
        if is_back:
            self.note_answer()
            return
        self._open_s = min(self._open_s * 2, self._options.longest_open_s)
        self._open()
        raise self._unavailable(self._open_s)

    def note_answer(self) -> None:
        """The server has answered, whatever it said."""
        self._failures = 0
        if self.state is not State.CLOSED:
            self._open_s = self._options.open_s
            self._change(State.CLOSED)

    def note_failure(self) -> None:
        """The server has not answered, or only that it cannot."""
        self._failures += 1
        if self.state is State.CLOSED and self._failures >= self._options.failures:
            self._open()

    def _open(self) -> None:
        self._opens_until = time.monotonic() + self._open_s
        self._change(State.OPEN)

    def _change(self, state: State) -> None:
        old, self.state = self.state, state
        if self._on_change is not None and old is not state:
            self._on_change(old, state)

    def _unavailable(self, wait_s: float) -> CircuitOpen:
        return CircuitOpen("The server has not answered lately.", retry_after_s=wait_s)
