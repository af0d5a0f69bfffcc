"""What the daemon asks for at every tick, and the plainest answer to it: the system clock."""

import math
import time
from typing import NamedTuple, Protocol

NS = 1_000_000_000
PAIR_ATTEMPTS = 4
PAIR_GOOD_NS = 5_000


class Tick(NamedTuple):
    """The time at a tick and what is known about it. Units as in the clock's record."""

    time_s: float
    monotonic_ns: int
    last_sync_s: float
    offset_s: float
    error_bound_s: float
    is_synchronized: bool


class Timekeeper(Protocol):
    def start(self) -> None:
        """Begin whatever runs beside the ticks. Does not wait for it."""

    def tick(self) -> Tick:
        """The time now. Called by one thread, again and again; never blocks, never raises."""

    def stop(self) -> None:
        """End what `start` began, without waiting for a server's answer."""


class SystemTime:
    """The system clock as it is, with nobody to say how far off that may be."""

    def start(self) -> None:
        return None

    def tick(self) -> Tick:
        realtime_ns, monotonic_ns, _ = read_clock_pair()
        return Tick(realtime_ns / NS, monotonic_ns, 0.0, 0.0, math.inf, False)

    def stop(self) -> None:
        return None


def read_clock_pair() -> tuple[int, int, int]:
    """The system clock and the monotonic clock of one moment, and how far apart the two readings
    may be at most; all in ns.

    A process may lose its core between two readings, so the closest of a few tries is taken.
    """
    best = (0, 0, NS * NS)
    for _ in range(PAIR_ATTEMPTS):
        before_ns = time.monotonic_ns()
        realtime_ns = time.time_ns()
        gap_ns = time.monotonic_ns() - before_ns
        if gap_ns < best[2]:
            best = (realtime_ns, before_ns + gap_ns // 2, gap_ns)
        if gap_ns < PAIR_GOOD_NS:
            break
    return best
