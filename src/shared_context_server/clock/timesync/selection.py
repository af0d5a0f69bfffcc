"""Which of several servers to believe: intersection of their intervals, best by root distance.

All times here are a `base`: UTC minus the monotonic clock, in ns. Unlike an offset to the system
clock it stays the same when somebody sets that clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shared_context_server.clock.layout import DRIFT


@dataclass(frozen=True, slots=True)
class Sample:
    """One exchange with one server: UTC - monotonic is `base_ns`, give or take `distance_ns`.

    The root distance was that small at `monotonic_ns`; it grows with the drift from then on.
    """

    server: str
    base_ns: int
    distance_ns: int
    monotonic_ns: int

    def distance_at(self, monotonic_ns: int) -> int:
        """The root distance at a moment. Rounded up: a bound must not shrink by rounding."""
        return self.distance_ns + grow(abs(monotonic_ns - self.monotonic_ns))


@dataclass(frozen=True, slots=True)
class Choice:
    """The outcome of a vote: the best sample, all that agree, all that were outvoted."""

    best: Sample
    agreeing: tuple[Sample, ...]
    outvoted: tuple[Sample, ...]
    bound_ns: int


def grow(elapsed_ns: int) -> int:
    """How far a free-running clock may run off in that time, rounded up."""
    return int(elapsed_ns * DRIFT) + 1


def choose(samples: Sequence[Sample], monotonic_ns: int) -> Choice | None:
    """The majority's choice at a moment; None if no majority agrees.

    As in RFC 5905, section 11.2.1 (Marzullo's algorithm, as ntpd runs it: without the midpoint
    rule), the points that the most servers vouch for are found; servers whose interval holds none
    of them are outvoted. If a majority tells the truth, and no liar comes near all of them, the
    truth is within `bound_ns` of the best one's base.

    The bound is the best one's root distance, or more where the others leave doubt: as far as
    the agreed interval reaches, and as the farthest reckoning of an agreeing server is away
    (RFC 5905's select jitter, at its worst).
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
    return Choice(best, tuple(agreeing), tuple(outvoted), bound_ns)


def _find_agreed_interval(samples: Sequence[Sample], monotonic_ns: int) -> tuple[int, int] | None:
    """From the first to the last point that the most servers hold, if those are a majority."""
    edges = []
    for sample in samples:
        distance = sample.distance_at(monotonic_ns)
        # At one point, opening sorts before closing: intervals that touch agree.
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
