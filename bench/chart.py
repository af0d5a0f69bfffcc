"""The chart of a run: calls a second of each path, as an SVG file."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench.results import JsonObject

WIDTH = 860
LEFT = 330  # the room of the names
LONGEST = WIDTH - LEFT - 90
TOP, ROW, GAP = 36, 23, 10


def draw(results: JsonObject) -> str:
    """The paths in groups, each the length of its calls a second."""
    paths = results["paths"]
    most = max(path["calls_a_second"] for path in paths)
    rows, y = [], TOP
    for _, group in groupby(_in_groups(paths), key=_group):
        for path in group:
            rows.append(
                {
                    "name": path["name"],
                    "kind": _kind(path["key"]),
                    "y": y,
                    "width": round(LONGEST * path["calls_a_second"] / most, 1),
                    "value": f"{path['calls_a_second']:,.0f}",
                }
            )
            y += ROW
        y += GAP
    machine, method = results["machine"], results["method"]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("chart.svg.jinja").render(
        title=f"Calls a second over {method['connections']} connections, one server process",
        note=(
            f"{results['taken_at'][:10]}, revision {results['revision'][:12]}, {machine['cores']} cores,"
            f" Python {machine['python']}; medians of {method['rounds']} rounds of"
            f" {method['seconds_a_round']:g} s"
        ),
        rows=rows,
        width=WIDTH,
        height=y + 30,
        left=LEFT,
    )


def _in_groups(paths: list[JsonObject]) -> list[JsonObject]:
    """What is compared stands together, the baseline first."""
    order = list(dict.fromkeys(_group(path) for path in paths))
    return sorted(
        paths, key=lambda path: (order.index(_group(path)), path["key"].split()[0] != "bare")
    )


def _group(path: JsonObject) -> str:
    kind, _, tool = path["key"].partition(" ")
    named = {"bare": "add_message", "bare messages": "get_messages", "bare tools": "tools/list"}
    return named[path["key"]] if kind == "bare" else str(tool)


def _kind(key: str) -> str:
    kind = key.split()[0]
    return kind if kind in ("bare", "rest", "sdk") else "mcp"
