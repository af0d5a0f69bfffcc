"""What the servers have said so far, and what may be believed of it.

Pure: it is told every time and reads no clock. Not safe for threads by itself.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from shared_context_server.clock.timesync.discipline import Estimate
from shared_context_server.clock.timesync.selection import Choice, Sample, choose

SAMPLES_KEPT = 8
"""RFC 5905's clock filter: the best of the last eight exchanges speaks for a server."""


class Verdict(NamedTuple):
    """What to believe, and when a server that is believed last answered."""

    estimate: Estimate
    synced_at_ns: int
    choice: Choice


class Ballot:
    """A vote among the servers that answer.

    More than half of all servers agreeing are always believed. Fewer are believed, when the
    others are silent, only once every server has had its chance to answer, and only if they do
    not contradict what was believed before: a lone liar must not win when the rest go away.
    """

    def __init__(self, servers: Sequence[str], silent_after_ns: int) -> None:
        self._silent_after_ns = silent_after_ns
        self._samples: dict[str, deque[Sample]] = {
            server: deque(maxlen=SAMPLES_KEPT) for server in servers
        }
        self._tried: set[str] = set()
        self._held: Estimate | None = None

    @property
    def is_every_server_tried(self) -> bool:
        return len(self._tried) == len(self._samples)

    def add_answer(self, sample: Sample) -> None:
        samples = self._samples[sample.server]
        # A server whose new answer contradicts its old ones has been corrected, or has broken.
        agreeing = [old for old in samples if _agree(old, sample)]
        samples.clear()
        samples.extend([*agreeing, sample])
        self._tried.add(sample.server)

    def add_failure(self, server: str) -> None:
        self._tried.add(server)

    def forget(self) -> None:
        """The monotonic clock has lost its relation to UTC: nothing said before holds."""
        for samples in self._samples.values():
            samples.clear()
        self._held = None

    def decide(self, monotonic_ns: int) -> Verdict | None:
        """The verdict on all that was said until now; None if there is nothing new to believe."""
        best_samples = []
        answered_at: dict[str, int] = {}
        for server, samples in self._samples.items():
            if samples and monotonic_ns - samples[-1].monotonic_ns <= self._silent_after_ns:
                answered_at[server] = samples[-1].monotonic_ns
                best_samples.append(min(samples, key=lambda s: s.distance_at(monotonic_ns)))
        choice = choose(best_samples, monotonic_ns)
        if choice is None or not self._may_be_believed(choice, monotonic_ns):
            return None
        estimate = Estimate(choice.best.base_ns, choice.bound_ns, monotonic_ns)
        self._held = estimate
        synced_at_ns = max(answered_at[sample.server] for sample in choice.agreeing)
        return Verdict(estimate, synced_at_ns, choice)

    def _may_be_believed(self, choice: Choice, monotonic_ns: int) -> bool:
        if 2 * len(choice.agreeing) > len(self._samples):
            return True
        if not self.is_every_server_tried:
            return False
        held = self._held
        if held is None:
            return True
        apart_ns = abs(choice.best.base_ns - held.base_ns)
        return apart_ns <= choice.bound_ns + held.bound_at(monotonic_ns)


def _agree(one: Sample, other: Sample) -> bool:
    at_ns = max(one.monotonic_ns, other.monotonic_ns)
    return abs(one.base_ns - other.base_ns) <= one.distance_at(at_ns) + other.distance_at(at_ns)
