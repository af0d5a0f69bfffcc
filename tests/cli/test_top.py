"""`top` on a terminal: what it shows, its keys, and the terminal as it was at its end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared_context_server.cli.fleet.rows import Doing, Order, count_rows, make_rows, sort_rows
from shared_context_server.cli.fleet.screen import View
from tests.cli.conftest import make_env, make_serve
from tests.cli.programs import open_terminal

ALTERNATE, BACK = "\x1b[?1049h", "\x1b[?1049l"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], Path]]:
    """The environment and the directory of a server on which `builder` works."""
    directory = tmp_path_factory.mktemp("top")
    env = make_env(directory)
    with make_serve(env, directory)() as server:
        httpx.post(
            f"{server.url}/mcp/tool/set_status",
            headers={"X-API-Key": server.secrets["API_KEY"], "X-Agent-ID": "builder"},
            json={"text": "runs the tests \x1b]0;owned\x07", "state": "working"},
        ).raise_for_status()
        yield env, directory


@pytest.mark.parametrize("end, code", [("q", 0), ("\x03", 130), (signal.SIGTERM, 143)])
def test_the_fleet_is_shown_live_and_the_terminal_is_restored(
    place: tuple[dict[str, str], Path], end: str | signal.Signals, code: int
) -> None:
    env, directory = place
    with open_terminal("top", "--interval", "0.2", env=env, cwd=directory) as terminal:
        terminal.wait_for(r"builder.*runs the tests")
        assert ALTERNATE in terminal.shown
        assert terminal.state != terminal.state_before
        if isinstance(end, signal.Signals):
            terminal.process.send_signal(end)
        else:
            terminal.type(" ")
            terminal.wait_for("paused")
            terminal.type(end)
        assert terminal.wait() == code
        assert terminal.state == terminal.state_before
        assert terminal.shown.rindex(BACK) > terminal.shown.rindex(ALTERNATE)
        assert "\x1b]0;" not in terminal.shown


def seen(seconds_ago: float, **more: Any) -> dict[str, Any]:
    """What one thread does, as list_agents tells it."""
    moment = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    usual = {"state": None, "status": "", "last_action": "add_message", "waits_for": None}
    return {"last_seen": moment.isoformat(), **usual, **more}


def agent(name: str, seconds_ago: float, **more: Any) -> dict[str, Any]:
    held = {"holds": [], "other_instances": []}
    return {"agent_id": name, **held, **seen(seconds_ago, **more)}


def test_a_row_says_who_is_blocked_by_whom_who_waits_and_who_is_silent() -> None:
    until = (datetime.now(UTC) + timedelta(minutes=10, seconds=30)).isoformat()
    lease = {"kind": "lease", "session_id": None, "name": "deploy"}
    rows = make_rows(
        [
            agent("silent", 1000, state="working"),
            agent("idle", 1, state="idle"),
            agent("waiting", 2, waits_for={"kind": "messages", "session_id": "s", "name": None}),
            agent("free", 3, waits_for={**lease, "name": "nobody's"}),
            agent("blocked", 4, waits_for=lease, state="working", status="ships"),
            agent(
                "holder",
                5,
                instance="main",
                holds=[{**lease, "expires_at": until, "instance": "main"}],
                other_instances=[seen(6, instance="sub\x1b", state="done")],
            ),
        ]
    )
    shown = {row.agent: row for row in sort_rows(rows, Order.STATE)}
    assert {name: row.doing for name, row in shown.items()} == {
        "blocked": Doing.BLOCKED,
        "waiting": Doing.WAITING,
        "free": Doing.WAITING,
        "holder/main": Doing.WORKING,
        "idle": Doing.IDLE,
        'holder/"sub\\u001b"': Doing.DONE,
        "silent": Doing.SILENT,
    }
    assert list(shown)[-1] == "silent"
    assert shown["blocked"].waits_for == "lease deploy of holder (10m left)"
    assert shown["holder/main"].holds == "deploy 10m"
    assert shown['holder/"sub\\u001b"'].holds == ""
    assert (shown["blocked"].text, shown["idle"].text) == ("ships", "add_message")
    assert sort_rows(rows, Order.SEEN)[0].agent == "idle"
    assert count_rows(rows).startswith("1 blocked, 2 waiting, 1 working")
    assert count_rows([]) == "no agents"


def test_scrolling_stays_within_the_rows() -> None:
    view = View("place", make_rows([agent(f"a{n}", n) for n in range(30)]))
    view.scroll(-5, height=14)
    assert view.first == 0
    view.scroll(500, height=14)
    assert view.first == 20
