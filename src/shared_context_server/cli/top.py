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
from shared_context_server.cli.fleet.rows import FleetRow, Order, count_rows, make_rows, sort_rows
from shared_context_server.cli.fleet.screen import View, draw, make_table
from shared_context_server.cli.hub.calls import Hub, list_pages
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
    """Show what each agent does, whom it waits for, what it holds, and when it was last seen.

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
                seen = show_duration(row.silent_s)
                cells = (row.agent, row.doing, seen, row.waits_for, row.holds, row.text)
                print("\t".join(cell or "-" for cell in cells))
        elif once or console.is_dumb_terminal:
            console.print(count_rows(rows), style="bold")
            console.print(make_table(rows, is_narrow=False))
        else:
            view = View(hub.place, rows, sort)
            return _run_live(fleet, view, console, interval)
    return exits.DONE


class _Fleet:
    """The agents, but for the one that looks at them, which does nothing else."""

    def __init__(self, hub: Hub, session_id: str | None, limit: int) -> None:
        self._hub = hub
        self._session_id = session_id
        self._limit = limit
        self.agents: list[dict[str, Any]] = []

    def read(self) -> list[FleetRow]:
        """Look once. Raises CommandFailed."""
        answer = list_pages(
            self._hub, "list_agents", "agents", self._limit, session_id=self._session_id
        )
        self.agents = [one for one in answer["agents"] if not self._is_own(one)]
        return make_rows(self.agents)

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
