"""Keeps the latest NTP samples of each server and selects the time that the servers agree on.

It gets every time as an argument and reads no clock. It is not thread-safe.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from shared_context_server.clock.timesync.discipline import Estimate
from shared_context_server.clock.timesync.intersection import Agreement, Sample, find_agreement

SAMPLES_KEPT = 8
"""The clock filter of RFC 5905: of the last eight samples of a server, the best one is used."""


class SelectedTime(NamedTuple):
    """The selected estimate, and when a server that agrees with it last answered."""

    estimate: Estimate
    synced_at_ns: int
    agreement: Agreement


class ClockSelection:
    """Selects the time on which the majority of the answering servers agrees.

    If more than half of all servers agree, their time is always selected. A smaller group counts
    only if every server was asked at least once, and only if it does not contradict the last
    selected time. Otherwise a single wrong server would win when the others stop answering.
    """

    def __init__(self, servers: Sequence[str], silent_after_ns: int) -> None:
        self._silent_after_ns = silent_after_ns
        self._samples: dict[str, deque[Sample]] = {
            server: deque(maxlen=SAMPLES_KEPT) for server in servers
        }
        self._tried: set[str] = set()
        self._last: Estimate | None = None

    @property
    def is_every_server_tried(self) -> bool:
        return len(self._tried) == len(self._samples)

    def add_answer(self, sample: Sample) -> None:
        samples = self._samples[sample.server]
        # If the new answer contradicts old ones, the server was corrected or is now wrong.
        agreeing = [old for old in samples if _agree(old, sample)]
        samples.clear()
        samples.extend([*agreeing, sample])
        self._tried.add(sample.server)

    def add_failure(self, server: str) -> None:
        self._tried.add(server)

    def reset(self) -> None:
        """Drop all samples: the relation of the monotonic clock to UTC has changed."""
        for samples in self._samples.values():
            samples.clear()
        self._last = None

    def select(self, monotonic_ns: int) -> SelectedTime | None:
        """The selected time, from all samples until now; None if no group of servers qualifies."""
        best_samples = []
        answered_at: dict[str, int] = {}
        for server, samples in self._samples.items():
            if samples and monotonic_ns - samples[-1].monotonic_ns <= self._silent_after_ns:
                answered_at[server] = samples[-1].monotonic_ns
                best_samples.append(min(samples, key=lambda s: s.distance_at(monotonic_ns)))
        agreement = find_agreement(best_samples, monotonic_ns)
        if agreement is None or not self._is_acceptable(agreement, monotonic_ns):
            return None
        estimate = Estimate(agreement.best.base_ns, agreement.bound_ns, monotonic_ns)
        self._last = estimate
        synced_at_ns = max(answered_at[sample.server] for sample in agreement.agreeing)
        return SelectedTime(estimate, synced_at_ns, agreement)

    def _is_acceptable(self, agreement: Agreement, monotonic_ns: int) -> bool:
        if 2 * len(agreement.agreeing) > len(self._samples):
            return True
        if not self.is_every_server_tried:
            return False
        last = self._last
        if last is None:
            return True
        apart_ns = abs(agreement.best.base_ns - last.base_ns)
        return apart_ns <= agreement.bound_ns + last.bound_at(monotonic_ns)


def _agree(one: Sample, other: Sample) -> bool:
    at_ns = max(one.monotonic_ns, other.monotonic_ns)
    return abs(one.base_ns - other.base_ns) <= one.distance_at(at_ns) + other.distance_at(at_ns)
