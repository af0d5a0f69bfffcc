"""The command `top`: shows what the agents do, live on a terminal."""

from __future__ import annotations

import signal
import sys
from datetime import datetime
from types import FrameType
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.live import Live

from shared_context_server.cli.failures import CommandFailed
from shared_context_server.cli.fleet import keyboard
from shared_context_server.cli.fleet.keyboard import Keyboard, open_keyboard
from shared_context_server.cli.fleet.rows import (
    FleetRow,
    Order,
    count_rows,
    describe_counts,
    make_rows,
    sort_rows,
)
from shared_context_server.cli.fleet.screen import View, draw, make_table
from shared_context_server.cli.hub.calls import Hub, list_fleet, list_pages
from shared_context_server.cli.hub.options import AsJson, HubOptions
from shared_context_server.cli.show.values import is_terminal, print_json, show_duration
from shared_context_server.remote import exits

_LONGEST_INTERVAL_S = 3600.0
_OWN_ACTION = "list_agents"
_SORT_KEYS = {"s": Order.STATE, "a": Order.AGENT, "l": Order.SEEN}
_SCROLL_KEYS = {
    keyboard.UP: -1,
    "k": -1,
    keyboard.DOWN: 1,
    "j": 1,
    keyboard.PAGE_UP: -20,
    keyboard.PAGE_DOWN: 20,
}
_QUIT_KEYS = ("q", keyboard.END)


def top(
    hub_options: HubOptions = HubOptions(),  # noqa: B008 - frozen
    *,
    session: Annotated[str | None, Parameter(help="Only agents in this session.")] = None,
    sort: Annotated[Order, Parameter(help="What comes first.")] = Order.STATE,
    interval: Annotated[float, Parameter(help="Seconds between two looks.")] = 1.0,
    limit: Annotated[int, Parameter(name=["--limit", "-n"], help="How many agents.")] = 500,
    once: Annotated[bool, Parameter(negative="", help="Print them once and end.")] = False,
    as_json: AsJson = False,
) -> int:
    """Show what each agent does and since when, its tasks, leases and unread messages, and whom it
    waits for.

    Live on a terminal: q ends, s, a and l sort by state, agent and last seen, the arrow keys scroll,
    space pauses. Anywhere else, and with --once, the fleet is printed once.
    """
    if not 0.2 <= interval <= _LONGEST_INTERVAL_S:
        raise CommandFailed("--interval must be 0.2 to 3600 seconds.", exit_code=exits.USAGE)
    with hub_options.open_hub() as hub:
        fleet = _Fleet(hub, session, limit)
        rows = sort_rows(fleet.read(), sort)
        console = Console(highlight=False)
        if as_json:
            print_json({"agents": fleet.agents})
        elif not is_terminal():
            for row in rows:
                print("\t".join(cell or "-" for cell in _list_cells(row)))
        elif once or console.is_dumb_terminal:
            console.print(fleet.counts, style="bold")
            console.print(make_table(rows, console.width))
        else:
            view = View(hub.place, rows, fleet.counts, sort)
            return _run_live(fleet, view, console, interval)
    return exits.DONE


def _list_cells(row: FleetRow) -> tuple[str, ...]:
    unread = "" if row.unread is None else str(row.unread)
    seen, since = show_duration(row.silent_s), show_duration(row.since_s)
    now = (row.agent, row.doing, seen, row.waits_for, row.holds, row.text)
    return (*now, unread, row.tasks, since)


class _Fleet:
    """The agents, but for the one that looks at them, which does nothing else."""

    def __init__(self, hub: Hub, session_id: str | None, limit: int) -> None:
        self._hub = hub
        self._session_id = session_id
        self._limit = limit
        self.agents: list[dict[str, Any]] = []
        self.counts = ""

    def read(self) -> list[FleetRow]:
        """Look once. Raises CommandFailed."""
        answer = list_fleet(self._hub, self._limit)
        self.agents = [one for one in answer["agents"] if not self._is_own(one)]
        if self._session_id is not None:
            names = self._list_names(self._session_id)
            self.agents = [one for one in self.agents if one["agent_id"] in names]
        rows = make_rows(self.agents)
        is_all = answer["next_cursor"] is None
        self.counts = count_rows(rows) if is_all else describe_counts(answer["counts"])
        return rows

    def _list_names(self, session_id: str) -> set[str]:
        """The agents of a session."""
        found = list_pages(self._hub, "list_agents", "agents", self._limit, session_id=session_id)
        return {one["agent_id"] for one in found["agents"]}

    def _is_own(self, agent: dict[str, Any]) -> bool:
        return bool(
            agent["agent_id"] == self._hub.agent_id
            and agent["last_action"] == _OWN_ACTION
            and not agent["status"]
            and not agent["other_instances"]
        )


def _run_live(fleet: _Fleet, view: View, console: Console, interval_s: float) -> int:
    """Look again and again until the user ends it. The terminal is restored however it ends."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        with (
            open_keyboard() as keys,
            Live(console=console, screen=True, auto_refresh=False, transient=True) as live,
        ):
            while True:
                now = f"{datetime.now().astimezone():%H:%M:%S}"
                live.update(draw(view, console, now), refresh=True)
                if not _wait(view, keys, console, interval_s):
                    return exits.DONE
                if not view.is_paused:
                    _look(fleet, view)
    except KeyboardInterrupt:
        return exits.INTERRUPTED


def _look(fleet: _Fleet, view: View) -> None:
    try:
        view.rows = fleet.read()
        view.counts = fleet.counts
        view.trouble = ""
    except CommandFailed as exc:
        view.trouble = str(exc)


def _wait(view: View, keys: Keyboard, console: Console, interval_s: float) -> bool:
    """Wait until it is time to look again, or a key has changed the view. False: the user has ended
    it."""
    key = keys.wait(interval_s)
    if key in _QUIT_KEYS:
        return False
    if key in _SORT_KEYS:
        view.order = _SORT_KEYS[key]
        view.first = 0
    elif key in _SCROLL_KEYS:
        view.scroll(_SCROLL_KEYS[key], console.height)
    elif key == " ":
        view.is_paused = not view.is_paused
    return True


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(exits.TERMINATED)
