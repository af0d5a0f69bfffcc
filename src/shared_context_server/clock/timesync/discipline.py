"""Steering a clock towards what the servers say: slowly if it is near, at once if it is far.

Pure: it is told the monotonic time and never reads a clock. The time it keeps is the monotonic
clock plus a base, so nobody who sets the system clock can move it.
"""

from dataclasses import dataclass

from shared_context_server.clock.timesync.selection import grow

STEP_NS = 128_000_000
"""RFC 5905's STEPT: what is farther off is stepped."""

SLEW = 0.005
"""Seconds a second while slewing. Fast enough that 128 ms are done in 26 s, slow enough that time
never runs backwards and no interval is measured more than half a percent wrong."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """UTC - monotonic is `base_ns`, give or take `bound_ns` at `monotonic_ns` and drift since."""

    base_ns: int
    bound_ns: int
    monotonic_ns: int

    def bound_at(self, monotonic_ns: int) -> int:
        return self.bound_ns + grow(abs(monotonic_ns - self.monotonic_ns))


class SteeredClock:
    """The time of ticks: the current base, and the estimate it is being slewed to."""

    def __init__(self, base_ns: int) -> None:
        self.base_ns = base_ns
        self._target: Estimate | None = None
        self._moved_at_ns = 0

    def steer(self, estimate: Estimate, monotonic_ns: int) -> bool:
        """Aim at an estimate from now on; whether that took a step."""
        self._target = estimate
        self._moved_at_ns = monotonic_ns
        if abs(estimate.base_ns - self.base_ns) < STEP_NS:
            return False
        self.base_ns = estimate.base_ns
        return True

    def shift(self, by_ns: int) -> None:
        """Jump by a known amount and forget the estimate, whose base holds no more."""
        self.base_ns += by_ns
        self._target = None

    def advance(self, monotonic_ns: int) -> int:
        """Slew as far as the time since the last call allows; the time now, in ns since 1970."""
        target = self._target
        if target is not None and target.base_ns != self.base_ns:
            allowed_ns = int((monotonic_ns - self._moved_at_ns) * SLEW)
            missing_ns = target.base_ns - self.base_ns
            self.base_ns += max(-allowed_ns, min(allowed_ns, missing_ns))
        self._moved_at_ns = monotonic_ns
        return monotonic_ns + self.base_ns

    def find_bound(self, monotonic_ns: int) -> int | None:
        """How far the time of `advance` may be off: the estimate's bound and what is still to be
        slewed. None while there is no estimate."""
        if self._target is None:
            return None
        return self._target.bound_at(monotonic_ns) + abs(self._target.base_ns - self.base_ns)
