"""What a run writes: JSON, tables and a chart, from short rounds against a real server."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pytest

from bench.__main__ import parse
from bench.bars import Bar, Change, judge, median_ratio
from bench.chart import draw
from bench.footprint import Started
from bench.keys import API_KEY
from bench.results import (
    PAGE,
    Run,
    iterate_sections,
    replace_between_markers,
    tables,
    to_json,
)
from bench.revisions import Revision
from bench.servers import Server, StartError, serve
from bench.shares import sum_up
from bench.throughput import Subject, make_bare_targets, make_targets, measure

ROOT = Path(__file__).parents[2]
HERE = Revision("this checkout", "0123456789abcdef", is_changed=True)
STARTED = (
    Started("importing the stack", [1.0], [0.9], [80.0], [60.0]),
    Started("this server", [1.2], [1.1], [96.0], [70.0]),
)


@pytest.fixture
async def run(tmp_path: Path) -> Run:
    """Rounds too short to say anything, on all paths."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    bare_environment = {"PYTHONPATH": str(ROOT)}
    with (
        serve(str(data_dir)) as server,
        serve(str(tmp_path), program=("bench.bare",), environment=bare_environment) as bare,
    ):
        targets = await make_targets(server)
        bare_targets = await make_bare_targets(bare, server, targets)
        subjects = [Subject("bare", bare, bare_targets), Subject("server", server, targets)]
        await measure(subjects, rounds=1, seconds=0.02)
        await assert_is_as_asked(server, API_KEY)
    measured = [*bare_targets, *targets]
    return Run(
        revision=HERE,
        rounds=1,
        seconds=0.02,
        targets=measured,
        started=STARTED,
        bars=judge(measured, *STARTED),
        base=Revision("old", "fedcba", is_changed=False, unmet=("p>=1 (not installed)",)),
        changes=[Change("REST add_message", 1.5, 0.9, math.nan)],
        shares={"REST add_message": {"uvicorn": 0.6, "ours: <tools>": 0.4}},
        stages=[("the interpreter", 10.0), ("mcp", 40.0)],
    )


async def assert_is_as_asked(server: Server, key: str) -> None:
    """Every call was a call: the messages are there."""
    url = f"http://127.0.0.1:{server.port}"
    async with httpx.AsyncClient(base_url=url, headers={"X-API-Key": key}) as client:
        listed = await client.post("/mcp/tool/list_sessions", json={})
    counts = {s["purpose"]: s["message_count"] for s in listed.json()["sessions"]}
    assert counts["read from"] == 50
    assert counts["written to"] >= 4 * 20  # four paths, twenty connections, once each at least


async def test_a_run_is_written_as_json_tables_and_a_chart(run: Run, tmp_path: Path) -> None:
    results = json.loads(to_json(run), parse_constant=refuse_constant)
    keys = [path["key"] for path in results["paths"]]
    assert len(keys) == len(set(keys)) == 15
    assert all(path["calls_a_second"] > 0 for path in results["paths"])
    assert all(path["p50_ms"] <= path["p99_ms"] for path in results["paths"])
    assert results["changes"][0]["cpu"] is None
    assert {path["name"] for path in results["paths"]} <= set(first_cells(tables(results)))
    lengths = bar_lengths(draw(results))
    assert len(lengths) == 15
    assert max(lengths) <= 860
    page = PAGE.read_text(encoding="utf-8")
    for name, section in iterate_sections(results):
        page = replace_between_markers(page, name, section)
    assert "Not measured yet" not in page
    again = page
    for name, section in iterate_sections(results):
        again = replace_between_markers(again, name, section)
    assert again == page


def refuse_constant(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


def first_cells(text: str) -> list[str]:
    return [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines()]


def bar_lengths(svg: str) -> list[float]:
    root = ET.fromstring(svg)
    return [float(rect.get("width", "")) for rect in root.iter("{http://www.w3.org/2000/svg}rect")]


async def test_the_chart_escapes_names_and_scales_to_the_fastest_path(run: Run) -> None:
    results = json.loads(to_json(run))
    for number, path in enumerate(results["paths"], 1):
        path.update(name=f"<{number}>", calls_a_second=100.0 * number)
    svg = draw(results)
    assert "&lt;1&gt;" in svg
    lengths = sorted(bar_lengths(svg))
    assert lengths[0] * 15 == pytest.approx(lengths[-1], rel=0.01)


@pytest.mark.parametrize(
    "value, is_at_least, is_met",
    [(2.0, True, True), (1.9, True, False), (2.0, False, True), (2.1, False, False)],
)
def test_a_bar_is_met_from_the_bar_on(value: float, is_at_least: bool, is_met: bool) -> None:
    assert Bar("b", value, 2.0, is_at_least, "x").is_met is is_met


def test_what_could_not_be_measured_meets_no_bar() -> None:
    value = median_ratio([1.0], [0.0])
    assert not Bar("b", value, 0.5, True, "").is_met
    assert not Bar("b", value, 0.5, False, "").is_met


def test_a_ratio_is_the_median_of_those_of_the_rounds() -> None:
    assert median_ratio([1.0, 30.0, 4.0], [2.0, 10.0, 4.0]) == 1.0


def test_small_shares_are_summed_up() -> None:
    assert sum_up({"a": 990, "b": 5, "c": 5}) == {"a": 0.99, "other": 0.01}


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="bench paths: begin"):
        replace_between_markers("# A page\n", "bench paths", "…")


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="HTTP_PORT"), serve(str(tmp_path), HTTP_PORT="none"):
        pass


@pytest.mark.parametrize(
    "arguments",
    ["--rounds 0", "--rounds x", "--seconds 0", "--seconds nan", "--starts -1", "--base",
     "--write --base HEAD", "--nosuch"],
)  # fmt: skip
def test_wrong_options_end_with_the_code_for_them(arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments.split())
    assert ended.value.code == 2
