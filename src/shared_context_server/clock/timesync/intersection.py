"""Finds the servers that agree on the time, by intersecting their intervals (RFC 5905).

A time here is a `base`: UTC minus the monotonic clock, in ns. Unlike an offset to the system clock
it does not change when someone sets that clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shared_context_server.clock.layout import DRIFT


@dataclass(frozen=True, slots=True)
class Sample:
    """The result of one query: UTC - monotonic is `base_ns` ± `distance_ns` at `monotonic_ns`.

    The root distance `distance_ns` grows with the drift.
    """

    server: str
    base_ns: int
    distance_ns: int
    monotonic_ns: int

    def distance_at(self, monotonic_ns: int) -> int:
        """The root distance at that time, rounded up: rounding must not make a bound smaller."""
        return self.distance_ns + find_drift(abs(monotonic_ns - self.monotonic_ns))


@dataclass(frozen=True, slots=True)
class Agreement:
    """The result: the best sample, all that agree, and all that were outvoted."""

    best: Sample
    agreeing: tuple[Sample, ...]
    outvoted: tuple[Sample, ...]
    bound_ns: int


def find_drift(elapsed_ns: int) -> int:
    """How far a free-running clock can drift in that time, in ns, rounded up."""
    return int(elapsed_ns * DRIFT) + 1


def find_agreement(samples: Sequence[Sample], monotonic_ns: int) -> Agreement | None:
    """The time on which a majority of the samples agrees; None if there is no majority.

    This is the selection of RFC 5905, section 11.2.1 (Marzullo's algorithm, without the midpoint
    rule, as in ntpd). It finds the interval that most servers have in common. Servers whose
    interval does not overlap it are outvoted. If a majority is right, and no wrong server is close
    to all of them, the true time is within `bound_ns` of the best sample.

    `bound_ns` is the largest of these: the root distance of the best sample, its distance to both
    ends of the common interval, and its distance to each agreeing sample (the worst case of the
    RFC's select jitter).
    """
    agreed = _find_agreed_interval(samples, monotonic_ns)
    if agreed is None:
        return None
    low, high = agreed
    agreeing: list[Sample] = []
    outvoted: list[Sample] = []
    for sample in samples:
        distance = sample.distance_at(monotonic_ns)
        overlaps = sample.base_ns - distance <= high and sample.base_ns + distance >= low
        (agreeing if overlaps else outvoted).append(sample)
    best = min(agreeing, key=lambda sample: sample.distance_at(monotonic_ns))
    bound_ns = max(
        best.distance_at(monotonic_ns),
        best.base_ns - low,
        high - best.base_ns,
        *(abs(sample.base_ns - best.base_ns) for sample in agreeing),
    )
    return Agreement(best, tuple(agreeing), tuple(outvoted), bound_ns)


def _find_agreed_interval(samples: Sequence[Sample], monotonic_ns: int) -> tuple[int, int] | None:
    """The interval that most samples have in common; None if these are no majority."""
    edges = []
    for sample in samples:
        distance = sample.distance_at(monotonic_ns)
        # At one point, a start sorts before an end: intervals that touch agree.
        edges.append((sample.base_ns - distance, 0))
        edges.append((sample.base_ns + distance, 1))
    depth = deepest = low = high = 0
    for position, is_closing in sorted(edges):
        if not is_closing:
            depth += 1
            if depth > deepest:
                deepest, low = depth, position
        else:
            if depth == deepest:
                high = position
            depth -= 1
    return (low, high) if 2 * deepest > len(samples) else None
