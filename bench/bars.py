"""What is compared with what, and how good is good enough."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.footprint import Started
from bench.load import Load
from bench.throughput import ERAS, HANDSHAKE, PAGE, Target

MAX_TAIL = 3.0  # p99 / p50
MAX_CPU_MS = 0.35  # of the server for an MCP add_message
MAX_CPU_RATIO = 1.25  # MCP / REST
MAX_MEMORY_RATIO = 1.25
MAX_START_S = 1.5


@dataclass(frozen=True)
class Bar:
    """A figure beside its bar, `value` with the unit that `unit` says: x, %, ms, s."""

    name: str
    value: float
    bar: float
    is_at_least: bool
    unit: str

    @property
    def is_met(self) -> bool:
        return self.value >= self.bar if self.is_at_least else self.value <= self.bar

    @property
    def shown(self) -> str:
        return _show(self.value, self.unit)

    @property
    def bar_shown(self) -> str:
        return f"{'at least' if self.is_at_least else 'at most'} {_show(self.bar, self.unit)}"


def judge(targets: Iterable[Target], stack: Started, server: Started) -> list[Bar]:
    """All figures that have a bar. A ratio of two paths is the median of the ratios of the rounds."""
    by_key = {target.key: target for target in targets}
    return [*_rates(by_key), *_cpu(by_key), *_tails(by_key), *_footprint(stack, server)]


def _rates(by_key: Mapping[str, Target]) -> Iterator[Bar]:
    def ratio(key: str, base: str, name: str, at_least: float, unit: str = "") -> Bar:
        value = median_ratio(_by_round(by_key[key]), _by_round(by_key[base]))
        return Bar(name, value, at_least, True, unit)

    yield ratio("rest add_message", "bare", "REST add_message, durable / bare route", 0.50)
    for era, version in ERAS.items():
        yield ratio(
            f"{era} add_message", "rest add_message", f"MCP add_message, {version} / REST", 0.85
        )
    name = f"MCP add_message, {HANDSHAKE} / the same through the SDK"
    yield ratio("handshake add_message", "sdk add_message", name, 6.0, "x")
    for era, version in ERAS.items():
        yield ratio(f"{era} get_time", "rest get_time", f"MCP get_time, {version} / REST", 0.80)
    name = f"REST get_messages of {PAGE} / the same bytes from a bare route"
    yield ratio("rest get_messages", "bare messages", name, 0.40)
    for era, version in ERAS.items():
        name = f"MCP get_messages of {PAGE}, {version} / REST"
        yield ratio(f"{era} get_messages", "rest get_messages", name, 0.70)
    for era, version in ERAS.items():
        name = f"MCP tools/list, {version} / the same bytes from a bare route"
        yield ratio(f"{era} tools/list", "bare tools", name, 0.60)


def _cpu(by_key: Mapping[str, Target]) -> Iterator[Bar]:
    rest = by_key["rest add_message"].cpu_ms()
    for era, version in ERAS.items():
        spent = by_key[f"{era} add_message"].cpu_ms()
        name = f"processor time, MCP add_message, {version} / REST"
        yield Bar(name, median_ratio(spent, rest), MAX_CPU_RATIO, False, "")
    for era, version in ERAS.items():
        spent = by_key[f"{era} add_message"].cpu_ms()
        name = f"processor time for an MCP add_message, {version}"
        yield Bar(name, statistics.median(spent), MAX_CPU_MS, False, "ms")


def _tails(by_key: Mapping[str, Target]) -> Iterator[Bar]:
    for target in by_key.values():
        if not target.key.startswith("bare"):
            tails = [load.quantile(0.99) / load.quantile(0.5) for load in target.loads]
            yield Bar(f"p99 / p50, {target.name}", statistics.median(tails), MAX_TAIL, False, "x")


def _footprint(stack: Started, server: Started) -> Iterator[Bar]:
    value = median_ratio(server.rss_mb, stack.rss_mb)
    yield Bar("idle memory (RSS) / importing the stack", value, MAX_MEMORY_RATIO, False, "x")
    ready_s = statistics.median(server.ready_s)
    yield Bar("start of the server to /ready, warm files", ready_s, MAX_START_S, False, "s")


@dataclass(frozen=True)
class Change:
    """A path of two revisions, new / old; each the median of the rounds."""

    name: str
    rate: float
    p99: float
    cpu: float


def compare(new: Sequence[Target], old: Sequence[Target]) -> list[Change]:
    """The paths that both have."""
    by_key = {target.key: target for target in old}
    return [
        Change(
            target.name,
            rate=median_ratio(_by_round(target), _by_round(by_key[target.key])),
            p99=median_ratio(_by_round(target, _p99), _by_round(by_key[target.key], _p99)),
            cpu=median_ratio(target.cpu_ms(), by_key[target.key].cpu_ms()),
        )
        for target in new
        if target.key in by_key
    ]


def median_ratio(values: Sequence[float], bases: Sequence[float]) -> float:
    """The median of the ratios of what was measured in the same round; nan where rounds were too
    short for the clock."""
    return statistics.median(
        value / base if base else math.nan for value, base in zip(values, bases, strict=True)
    )


def _rate(load: Load) -> float:
    return load.rate


def _p99(load: Load) -> float:
    return load.quantile(0.99)


def _by_round(target: Target, take: Callable[[Load], float] = _rate) -> list[float]:
    return [take(load) for load in target.loads]


def _show(value: float, unit: str) -> str:
    digits = 1 if unit == "x" and value >= 4 else 2
    return f"{value:.{digits}f}{'x' if unit == 'x' else f' {unit}' if unit else ''}"
