"""The alert rules, the dashboard of Grafana and the runbook speak of metrics and alerts that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared_context_server.rest.probes import refresh_gauges
from shared_context_server.server import open_server
from shared_context_server.settings import Settings
from shared_context_server.tools.catalog import TOOLS
from tests.postgres import DatabaseServer

ROOT = Path(__file__).parents[2]
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "config/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((ROOT / "config/grafana-dashboard.json").read_text())
EXPRESSIONS = [rule["expr"] for rule in RULES] + [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
]
_METRIC = re.compile(r"\b((?:mcp|scs|shared_context)_\w+)")


async def read_metrics(settings: Settings) -> set[str]:
    async with open_server(settings) as server:
        for status in (200, 500):
            server.metrics.observe("get_time", status, 0.01)
        server.metrics.count_limited("disk")
        await refresh_gauges(server.services, server.metrics)
        return {sample.name for family in server.metrics.collect() for sample in family.samples}


@pytest.fixture
async def known(postgres: DatabaseServer, tmp_path: Path) -> set[str]:
    """The metrics of a server on SQLite and of one on PostgreSQL."""
    with postgres.new_database() as found:
        return await read_metrics(
            Settings(data_dir=tmp_path / "one", database_url=None)
        ) | await read_metrics(Settings(data_dir=tmp_path / "two", **found))


async def test_every_metric_that_they_name_exists(known: set[str]) -> None:
    named = {name for text in EXPRESSIONS for name in _METRIC.findall(text)}
    assert len(named) > 12
    assert named - known == set()


async def test_the_dashboard_shows_every_metric_and_the_page_explains_it(known: set[str]) -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    shown = " ".join(EXPRESSIONS)
    for name in known:
        base = re.sub(r"_(bucket|sum|count|created)$", "", name)
        assert f"`{base}" in page, base
        if name not in {"shared_context_server_info", "scs_writer_last_batch_size"}:
            assert base in shown, base


def test_every_alert_has_a_section_in_the_runbook() -> None:
    page = (ROOT / "docs/runbook.md").read_text()
    names = [rule["alert"] for rule in RULES]
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == names
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"]


def test_the_tools_that_expressions_leave_out_are_those_that_wait() -> None:
    left_out = {names for text in EXPRESSIONS for names in re.findall(r'tool!~"([^"]+)"', text)}
    (names,) = left_out
    assert set(names.split("|")) == {tool.name for tool in TOOLS if tool.is_waiting}


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_brackets_and_quotes_of_expressions_are_closed(text: str) -> None:
    assert text.count('"') % 2 == 0
    bare = re.sub(r'"[^"]*"', "", text)
    for opening, closing in ("()", "{}", "[]"):
        assert bare.count(opening) == bare.count(closing)
