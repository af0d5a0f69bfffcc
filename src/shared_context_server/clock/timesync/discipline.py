"""Clock discipline: slews the clock to correct a small error, steps it to correct a large one.

It gets the monotonic time as an argument and reads no clock. The disciplined time is the monotonic
clock plus a base, so it does not change when someone sets the system clock.
"""

from dataclasses import dataclass

from shared_context_server.clock.timesync.intersection import find_drift

STEP_NS = 128_000_000
"""STEPT of RFC 5905: a larger error is corrected by a step."""

SLEW = 0.005
"""Seconds a second while slewing. 128 ms take 26 s. Time never runs backwards, and an interval is
measured wrong by at most half a percent."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """UTC - monotonic is `base_ns` ± `bound_ns` at `monotonic_ns`. The bound grows with the drift."""

    base_ns: int
    bound_ns: int
    monotonic_ns: int

    def bound_at(self, monotonic_ns: int) -> int:
        return self.bound_ns + find_drift(abs(monotonic_ns - self.monotonic_ns))


class DisciplinedClock:
    """The clock that is published: its current base, and the estimate it is slewed to."""

    def __init__(self, base_ns: int) -> None:
        self.base_ns = base_ns
        self._target: Estimate | None = None
        self._moved_at_ns = 0

    def steer(self, estimate: Estimate, monotonic_ns: int) -> bool:
        """Slew towards `estimate` from now on, or step to it. Return whether it was a step."""
        self._target = estimate
        self._moved_at_ns = monotonic_ns
        if abs(estimate.base_ns - self.base_ns) < STEP_NS:
            return False
        self.base_ns = estimate.base_ns
        return True

    def shift(self, by_ns: int) -> None:
        """Step by a known amount and drop the estimate, whose base is no longer valid."""
        self.base_ns += by_ns
        self._target = None

    def advance(self, monotonic_ns: int) -> int:
        """Slew for the time since the last call. Return the time now, in ns since 1970."""
        target = self._target
        if target is not None and target.base_ns != self.base_ns:
            allowed_ns = int((monotonic_ns - self._moved_at_ns) * SLEW)
            missing_ns = target.base_ns - self.base_ns
            self.base_ns += max(-allowed_ns, min(allowed_ns, missing_ns))
        self._moved_at_ns = monotonic_ns
        return monotonic_ns + self.base_ns

    def find_bound(self, monotonic_ns: int) -> int | None:
        """The error bound of the time that `advance` returns: the estimate's bound plus the part
        that is not slewed yet. None while there is no estimate."""
        if self._target is None:
            return None
        return self._target.bound_at(monotonic_ns) + abs(self._target.base_ns - self.base_ns)
