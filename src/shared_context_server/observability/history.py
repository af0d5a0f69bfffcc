"""The last hour of the metrics, minute by minute, kept in the process.

`add` compares the counters with those of the sample before. So calls pay nothing for it. With several
workers the counters are those of all of them, since each reads the others' files.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # commands on a data dir do not need it
    from prometheus_client.metrics_core import Metric

BUCKETS_S = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    120.0,
)
"""The buckets of durations; the last one has no end."""
MINUTES = 60
SAMPLE_INTERVAL_S = 15.0
MINUTE = timedelta(minutes=1)

_CALLS = "mcp_requests_total"
_SECONDS = "mcp_request_duration_seconds_bucket"
_WAITERS = "mcp_waiters"
_QUEUE = "scs_writer_queue_depth"
_BATCHES = "scs_writer_batches"
_OPERATIONS = "scs_writer_operations"
_GAUGES = (_WAITERS, _QUEUE, _BATCHES, _OPERATIONS)
_FIRST_ERROR = 400


@dataclass(slots=True)
class Calls:
    """Finished calls. `buckets`: how many took up to each of BUCKETS_S, and longer than the last."""

    count: int = 0
    errors: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))

    def add(self, other: Calls) -> None:
        self.count += other.count
        self.errors += other.errors
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]

    def since(self, earlier: Calls) -> Calls:
        """Return what has been counted since. Counters of a process that has ended may be missing."""
        return Calls(
            max(0, self.count - earlier.count),
            max(0, self.errors - earlier.errors),
            [max(0, a - b) for a, b in zip(self.buckets, earlier.buckets, strict=True)],
        )

    def quantile_s(self, share: float) -> float | None:
        """Return the duration that this share of the calls did not exceed, interpolated within its
        bucket; None without calls. The last bucket has no end, so its beginning is returned."""
        total = sum(self.buckets)
        if total == 0:
            return None
        wanted, passed = share * total, 0
        for place, count in enumerate(self.buckets):
            if passed + count >= wanted and count:
                if place == len(BUCKETS_S):
                    break
                begin = BUCKETS_S[place - 1] if place else 0.0
                return begin + (BUCKETS_S[place] - begin) * (wanted - passed) / count
            passed += count
        return BUCKETS_S[-1]


@dataclass(slots=True)
class Minute:
    """What happened in the minute from `begin` on. `waiters` and `queue` are the most that a sample
    has met; `batches` and `operations` are the writer's commits and the writes in them."""

    begin: datetime
    by_tool: defaultdict[str, Calls] = field(default_factory=lambda: defaultdict(Calls))
    waiters: float = 0
    queue: float = 0
    batches: float = 0
    operations: float = 0

    def total(self, without: Collection[str] = ()) -> Calls:
        """Return the calls of all tools but these."""
        return add_up(calls for tool, calls in self.by_tool.items() if tool not in without)


@dataclass(frozen=True, slots=True)
class LastHour:
    """The last 60 minutes, oldest first, up to the present one. Minutes without a sample are empty.
    `since` is when the process began to count."""

    since: datetime
    minutes: Sequence[Minute]

    def by_tool(self) -> dict[str, Calls]:
        """Return the calls of each tool that was called."""
        tools: defaultdict[str, Calls] = defaultdict(Calls)
        for minute in self.minutes:
            for tool, calls in minute.by_tool.items():
                tools[tool].add(calls)
        return {tool: calls for tool, calls in tools.items() if calls.count}


class History:
    """A ring of the last MINUTES minutes. `add` is to be called every SAMPLE_INTERVAL_S."""

    def __init__(self, now: datetime) -> None:
        self._since = now
        self._minutes: deque[Minute] = deque(maxlen=MINUTES)
        self._tools: dict[str, Calls] = {}
        self._gauges: dict[str, float] = {}

    def begin(self, metrics: Iterable[Metric]) -> None:
        """Count from these metrics on: of a worker that was restarted, they have the calls of hours."""
        self._tools, self._gauges = _read(metrics)

    def add(self, metrics: Iterable[Metric], now: datetime) -> None:
        """Add a sample to the minute of `now`."""
        tools, gauges = _read(metrics)
        minute = self._find_minute(now)
        for tool, calls in tools.items():
            earlier = self._tools.get(tool)
            new = calls if earlier is None else calls.since(earlier)
            if new.count or sum(new.buckets):
                minute.by_tool[tool].add(new)
        minute.waiters = max(minute.waiters, gauges.get(_WAITERS, 0))
        minute.queue = max(minute.queue, gauges.get(_QUEUE, 0))
        minute.batches += self._grown(gauges, _BATCHES)
        minute.operations += self._grown(gauges, _OPERATIONS)
        self._tools, self._gauges = tools, gauges

    def show(self, now: datetime) -> LastHour:
        """Return the last hour as it is known from the samples."""
        end = _begin_of_minute(now)
        known = {minute.begin: minute for minute in self._minutes}
        begins = [end - MINUTE * number for number in range(MINUTES - 1, -1, -1)]
        return LastHour(self._since, [known.get(begin) or Minute(begin) for begin in begins])

    def _find_minute(self, now: datetime) -> Minute:
        begin = _begin_of_minute(now)
        if not self._minutes or self._minutes[-1].begin != begin:
            self._minutes.append(Minute(begin))
        return self._minutes[-1]

    def _grown(self, gauges: Mapping[str, float], name: str) -> float:
        now, before = gauges.get(name, 0.0), self._gauges.get(name, 0.0)
        return max(0.0, now - before)


def add_up(parts: Iterable[Calls]) -> Calls:
    """Return the sum of the calls."""
    total = Calls()
    for calls in parts:
        total.add(calls)
    return total


def _begin_of_minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def _read(metrics: Iterable[Metric]) -> tuple[dict[str, Calls], dict[str, float]]:
    """Return the calls since the start by tool, and the gauges by name."""
    tools: defaultdict[str, Calls] = defaultdict(Calls)
    gauges: defaultdict[str, float] = defaultdict(float)
    up_to: defaultdict[str, dict[float, float]] = defaultdict(dict)
    for metric in metrics:
        for sample in metric.samples:
            if sample.name == _CALLS:
                calls = tools[sample.labels["tool"]]
                calls.count += int(sample.value)
                if int(sample.labels["status"]) >= _FIRST_ERROR:
                    calls.errors += int(sample.value)
            elif sample.name == _SECONDS:
                up_to[sample.labels["tool"]][float(sample.labels["le"])] = sample.value
            elif sample.name in _GAUGES:
                gauges[sample.name] += sample.value
    for tool, counts in up_to.items():
        ordered = [int(counts[bound]) for bound in sorted(counts)]
        tools[tool].buckets = [a - b for a, b in zip(ordered, [0, *ordered], strict=False)]
    return dict(tools), dict(gauges)
