"""`top` on a terminal: what it shows, its keys, and the terminal as it was at its end."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from shared_context_server.cli.fleet.rows import Order, count_rows, make_rows, sort_rows
from shared_context_server.cli.fleet.screen import View, draw
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


def test_a_terminal_that_is_resized_is_drawn_anew_at_once(
    place: tuple[dict[str, str], Path],
) -> None:
    env, directory = place
    with open_terminal("top", "--interval", "3600", env=env, cwd=directory) as terminal:
        terminal.wait_for("q quit")
        terminal.resize(rows=24, columns=60)
        terminal.wait_for("q quit")
        terminal.type("q")
        assert terminal.wait() == 0


def seen(seconds_ago: float, doing: str, **more: Any) -> dict[str, Any]:
    """What one thread does, as GET /fleet tells it."""
    moment = (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat()
    usual = {"activity": doing, "status": "", "last_action": "add_message", "waits_for": None}
    return {"last_seen": moment, "doing_since": moment, "blocked_by": None, **usual, **more}


def agent(name: str, seconds_ago: float, doing: str, **more: Any) -> dict[str, Any]:
    held = {"holds": [], "tasks": [], "unread": None, "other_instances": []}
    return {"agent_id": name, **held, **seen(seconds_ago, doing, **more)}


def test_a_row_says_who_is_blocked_by_whom_who_waits_and_who_is_silent() -> None:
    until = (datetime.now(UTC) + timedelta(minutes=10, seconds=30)).isoformat()
    lease = {"kind": "lease", "session_id": None, "name": "deploy"}
    held = {**lease, "expires_at": until, "instance": "main"}
    rows = make_rows(
        [
            agent("silent", 1000, "silent"),
            agent("idle", 1, "idle"),
            agent(
                "waiting",
                2,
                "waiting",
                waits_for={"kind": "messages", "session_id": "s", "name": None},
            ),
            agent(
                "blocked",
                4,
                "blocked",
                waits_for=lease,
                status="ships",
                blocked_by={**held, "holder": "holder"},
            ),
            agent(
                "holder",
                5,
                "working",
                instance="main",
                holds=[held],
                tasks=[{"task_id": 3, "title": "Ship\tit", "expires_at": until}],
                unread=7,
                other_instances=[seen(6, "idle", instance="sub\x1b")],
            ),
        ]
    )
    shown = {row.agent: row for row in sort_rows(rows, Order.STATE)}
    assert list(shown) == [
        *("blocked", "silent", "waiting", "holder/main", "idle", 'holder/"sub\\u001b"')
    ]
    assert shown["blocked"].now == "lease deploy of holder/main (10m left) · ships"
    assert shown["waiting"].waits_for == "messages in s"
    assert shown["holder/main"].held == "#3 Ship it, deploy 10m"
    assert [row.unread for row in shown.values()] == [None, None, None, 7, None, None]
    assert shown['holder/"sub\\u001b"'].held == ""
    assert shown["idle"].text == "add_message"
    assert sort_rows(rows, Order.SEEN)[0].agent == "idle"
    assert count_rows(rows) == "1 blocked, 1 silent, 1 waiting, 1 working, 2 idle"
    assert count_rows([]) == "no agents"


@pytest.mark.parametrize("width, lacks", [(120, ()), (80, ("waits for",)), (60, ("holds",))])
def test_the_screen_fits_into_a_terminal_and_has_all_that_fits(
    width: int, lacks: tuple[str, ...]
) -> None:
    rows = make_rows([agent(f"agent-{n}", n, "working", unread=n) for n in range(50)])
    console = Console(width=width, height=24, record=True, file=io.StringIO())
    view = View("http://127.0.0.1:23456", rows, count_rows(rows), Order.SEEN, first=48)
    console.print(draw(view, console, "12:00:00"))
    lines = console.export_text().splitlines()
    assert len(lines) < 24
    assert all(len(line) <= width for line in lines)
    assert lines[0].startswith("12:00:00  50 working")
    heads = {"agent", "does", "since", "unread", "waits for", "holds", "doing now"}
    assert all((head in lines[1]) == (head not in lacks) for head in heads - {"waits for"})
    assert ("waits for" in lines[1]) == (width >= 100)
    assert lines[-2].split()[:4] == ["agent-49", "working", "49s", "49"]
    assert lines[-1].startswith("31-50 of 50 · q quit")


def test_scrolling_stays_within_the_rows() -> None:
    view = View("place", make_rows([agent(f"a{n}", n, "working") for n in range(30)]))
    view.scroll(-5, height=14)
    assert view.first == 0
    view.scroll(500, height=14)
    assert view.first == 20
