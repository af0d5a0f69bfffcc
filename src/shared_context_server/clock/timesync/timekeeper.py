"""The interface of the daemon's time sources, and the simplest one: the system clock."""

import math
import time
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple, Protocol
else:  # `typing` takes almost a megabyte
    Protocol = object

NS = 1_000_000_000
PAIR_ATTEMPTS = 4
PAIR_GOOD_NS = 5_000


if TYPE_CHECKING:

    class Tick(NamedTuple):
        """The time at a tick and its error. Units as in the clock's record."""

        time_s: float
        monotonic_ns: int
        last_sync_s: float
        offset_s: float
        error_bound_s: float
        is_synchronized: bool

else:
    Tick = namedtuple(
        "Tick",
        ["time_s", "monotonic_ns", "last_sync_s", "offset_s", "error_bound_s", "is_synchronized"],
    )


class Timekeeper(Protocol):
    def start(self) -> None:
        """Start the background threads, if there are any. Does not wait for them."""

    def tick(self) -> Tick:
        """The time now. Always called from the same thread. Never blocks, never raises."""

    def stop(self) -> None:
        """Stop the background threads. Does not wait for a server's answer."""


class SystemTime:
    """The system clock, with unknown error."""

    def start(self) -> None:
        return None

    def tick(self) -> Tick:
        realtime_ns, monotonic_ns, _ = read_clock_pair()
        return Tick(realtime_ns / NS, monotonic_ns, 0.0, 0.0, math.inf, False)

    def stop(self) -> None:
        return None


def read_clock_pair() -> tuple[int, int, int]:
    """The system clock and the monotonic clock at the same time, and the largest possible time
    between both readings; all in ns.

    The process may be descheduled between two readings, so the closest of a few pairs is used.
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
