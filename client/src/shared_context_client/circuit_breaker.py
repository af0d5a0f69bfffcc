"""A circuit breaker: send no calls for a while to a server that does not answer."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import NoReturn

from shared_context_client.errors import CircuitOpen, SharedContextError
from shared_context_client.options import Breaker

PROBE_S = 2.0  # time-out of a probe
RETRY_SOON_S = 0.2  # another call is probing now


class State(StrEnum):
    """The state of the circuit. CLOSED: calls are sent. OPEN: they fail at once. HALF_OPEN: one
    call probes whether the server is back."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


OnStateChange = Callable[[State, State], None]
"""Called with the old and the new state, on the client's loop; it must not block."""


class CircuitBreaker:
    """A circuit breaker for the tasks of one loop."""

    def __init__(self, options: Breaker, on_change: OnStateChange | None = None) -> None:
        self._options = options
        self._on_change = on_change
        self._failures = 0
        self._open_s = options.open_s
        self._opens_until = 0.0
        self._last_failure: SharedContextError | None = None
        self.state = State.CLOSED

    async def admit(self, probe: Callable[[], Awaitable[SharedContextError | None]]) -> None:
        """Let a call through, or raise CircuitOpen with retry_after_s, caused by the last failure.
        The first call after the pause awaits `probe`, which returns None if the server answers,
        else the failure."""
        if self.state is State.CLOSED:
            return
        wait_s = self._opens_until - time.monotonic()
        if self.state is State.HALF_OPEN or wait_s > 0:
            self._refuse(max(wait_s, RETRY_SOON_S))
        self._change(State.HALF_OPEN)
        is_answered = False
        try:
            failure = await probe()
            is_answered = True
        finally:
            if not is_answered:  # cancelled: the next call probes
                self._change(State.OPEN)
        if failure is None:
            self.note_answer()
            return
        self._last_failure = failure
        self._open_s = min(self._open_s * 2, self._options.longest_open_s)
        self._open()
        self._refuse(self._open_s)

    def note_answer(self) -> None:
        """Note that the server has answered, whatever it said."""
        self._failures = 0
        self._last_failure = None
        if self.state is not State.CLOSED:
            self._open_s = self._options.open_s
            self._change(State.CLOSED)

    def note_failure(self, failure: SharedContextError) -> None:
        """Note that the server did not answer, or only that it is unavailable."""
        self._failures += 1
        self._last_failure = failure
        if self.state is State.CLOSED and self._failures >= self._options.failures:
            self._open()

    def _open(self) -> None:
        self._opens_until = time.monotonic() + self._open_s
        self._change(State.OPEN)

    def _change(self, state: State) -> None:
        old, self.state = self.state, state
        if self._on_change is not None and old is not state:
            self._on_change(old, state)

    def _refuse(self, wait_s: float) -> NoReturn:
        last = self._last_failure
        said = "" if last is None else f" The last failure: {last.message}"
        message = f"The server has not answered lately.{said}"
        raise CircuitOpen(message, retry_after_s=wait_s) from last
