"""What one run has measured: as JSON, as tables, and as the figures of docs/performance.md."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.bars import Bar, Change
from bench.footprint import Started
from bench.revisions import Revision
from bench.throughput import CONNECTIONS, Target

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "docs" / "performance.json"
PAGE = REPOSITORY / "docs" / "performance.md"
CHART = REPOSITORY / "docs" / "performance.svg"
PACKAGES = (
    "fastmcp",
    "mcp",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "pydantic",
    "aiosqlite",
)

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """All figures of a run. `shares` and `stages` are of the parts that a longer run has."""

    revision: Revision
    rounds: int
    seconds: float
    targets: Sequence[Target]
    started: Sequence[Started]
    bars: Sequence[Bar]
    base: Revision | None = None
    changes: Sequence[Change] = ()
    shares: dict[str, dict[str, float]] = field(default_factory=dict)
    stages: Sequence[tuple[str, float]] = ()
    load_average: float = 0.0  # of the machine before the run


def to_json(run: Run) -> str:
    """The figures as JSON, without any that is no number."""
    return json.dumps(_without_nan(_collect(run)), indent=1, allow_nan=False) + "\n"


def _collect(run: Run) -> JsonObject:
    return {
        "format": 1,
        "taken_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "revision": run.revision.commit,
        "has_changes": run.revision.is_changed,
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "processor": _processor(),
            "load_average_before": round(run.load_average, 2),
            "python": platform.python_version(),
            "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "method": {
            "connections": CONNECTIONS,
            "rounds": run.rounds,
            "seconds_a_round": run.seconds,
            "starts": len(run.started[0].ready_s) if run.started else 0,
        },
        "paths": [_path(target) for target in run.targets],
        "starts": [asdict(started) | {"medians": started.medians()} for started in run.started],
        "bars": [asdict(bar) | {"is_met": bar.is_met} for bar in run.bars],
        "shares": run.shares,
        "stages": [{"name": name, "rss_mb": mb} for name, mb in run.stages],
        **_comparison(run),
    }


def _path(target: Target) -> JsonObject:
    return {
        "key": target.key,
        "name": target.name,
        "calls_a_second": round(target.rate, 1),
        "p50_ms": round(target.quantile_ms(0.5), 3),
        "p99_ms": round(target.quantile_ms(0.99), 3),
        "cpu_ms": round(statistics.median(target.cpu_ms()), 4),
        "rounds": {
            "calls_a_second": [round(load.rate, 1) for load in target.loads],
            "p50_ms": [round(load.quantile(0.5) * 1000, 3) for load in target.loads],
            "p99_ms": [round(load.quantile(0.99) * 1000, 3) for load in target.loads],
            "cpu_ms": [round(spent, 4) for spent in target.cpu_ms()],
        },
    }


def _comparison(run: Run) -> JsonObject:
    if run.base is None:
        return {}
    base = {"name": run.base.name, "revision": run.base.commit, "unmet": list(run.base.unmet)}
    return {"base": base, "changes": [asdict(change) for change in run.changes]}


def _processor() -> str:
    """The model of the processor, as Linux tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- tables, from the JSON: what a page shows is what was stored


def tables(results: JsonObject) -> str:
    """All tables of a run in Markdown."""
    sections = [_say_method(results), _paths_table(results), _bars_table(results)]
    sections.append(_starts_table(results))
    if results.get("changes"):
        sections.append(_changes_table(results))
    if results["shares"]:
        sections.append(_shares_table(results))
    if results["stages"]:
        sections.append(_stages_table(results))
    return "\n\n".join(sections)


def _say_method(results: JsonObject) -> str:
    machine, method = results["machine"], results["method"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    changes = " with changes" if results["has_changes"] else ""
    return (
        f"Taken on {results['taken_at'][:10]} at revision `{results['revision'][:12]}`{changes}: {machine['cores']} cores"
        f" ({machine['processor']}), Python {machine['python']}, {packages}."
        f" {method['connections']} connections, medians of {method['rounds']} rounds of"
        f" {method['seconds_a_round']:g} s, and of {method['starts']} starts."
        f" Load average of the machine before the run: {machine['load_average_before']:.1f}."
    )


def _paths_table(results: JsonObject) -> str:
    return _table(
        ("path", "calls a second", "p50, ms", "p99, ms", "processor time of the server a call, ms"),
        (
            (
                path["name"],
                f"{path['calls_a_second']:,.0f}",
                f"{path['p50_ms']:.2f}",
                f"{path['p99_ms']:.2f}",
                f"{path['cpu_ms']:.3f}",
            )
            for path in results["paths"]
        ),
    )


def _bars_table(results: JsonObject) -> str:
    bars = [
        Bar(**{**bar, "value": _number(bar["value"])})
        for bar in (
            {n: v for n, v in stored.items() if n != "is_met"} for stored in results["bars"]
        )
    ]
    return _table(
        ("what", "measured", "bar", ""),
        (
            (bar.name, bar.shown, bar.bar_shown, "met" if bar.is_met else "**missed**")
            for bar in bars
        ),
    )


def _starts_table(results: JsonObject) -> str:
    return _table(
        ("fresh process", "ready after, s", "processor time until then, s", "RSS, MB", "PSS, MB"),
        (
            (
                started["name"],
                *(f"{started['medians'][name]:.2f}" for name in ("ready_s", "cpu_s")),
                *(f"{started['medians'][name]:.1f}" for name in ("rss_mb", "pss_mb")),
            )
            for started in results["starts"]
        ),
    )


def _changes_table(results: JsonObject) -> str:
    base = results["base"]
    head = (
        f"new / {base['name']} ({base['revision'][:12]})",
        "calls a second",
        "p99",
        "processor time a call",
    )
    return _table(
        head,
        (
            (change["name"], *(f"{_number(change[name]):.2f}" for name in ("rate", "p99", "cpu")))
            for change in results["changes"]
        ),
    )


def _shares_table(results: JsonObject) -> str:
    """One column a path, the parts in the order of the first."""
    shares: dict[str, dict[str, float]] = results["shares"]
    first = next(iter(shares.values()))
    parts = sorted(
        {part for of in shares.values() for part in of}, key=lambda part: -first.get(part, 0)
    )
    return _table(
        ("share of the server's processor time", *shares),
        ((part, *(f"{of.get(part, 0):.0%}" for of in shares.values())) for part in parts),
    )


def _stages_table(results: JsonObject) -> str:
    stages = [(stage["name"], stage["rss_mb"]) for stage in results["stages"]]
    befores = [0.0, *(mb for _, mb in stages)]
    return _table(
        ("memory of a server (RSS), in the order in which it grows", "MB", "altogether"),
        (
            (name, f"{mb - before:.1f}", f"{mb:.1f}")
            for (name, mb), before in zip(stages, befores, strict=False)
        ),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


# ---- the page


def replace_between_markers(page: str, name: str, text: str) -> str:
    """The page with `text` between the markers of this name. Raises ValueError if they are not there."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, found_begin, rest = page.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"The page has no lines {begin} and {end}.")
    return f"{head}{begin}\n\n{text}\n\n{end}{tail}"


def iterate_sections(results: JsonObject) -> Iterator[tuple[str, str]]:
    """The parts of the page that a run writes, by the names of their markers."""
    yield "bench method", _say_method(results)
    yield "bench paths", _paths_table(results)
    yield "bench bars", _bars_table(results)
    yield "bench starts", _starts_table(results)
    if results["shares"]:
        yield "bench shares", _shares_table(results)
    if results["stages"]:
        yield "bench stages", _stages_table(results)
