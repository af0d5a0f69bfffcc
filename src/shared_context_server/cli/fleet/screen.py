"""Draw the fleet for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from shared_context_server.cli.fleet.rows import Doing, FleetRow, Order, count_rows, sort_rows
from shared_context_server.cli.show.values import show_cell, show_duration

KEYS = "q quit · s by state · a by agent · l by last seen · ↓ ↑ scroll · space pause"

_STYLES = {
    Doing.BLOCKED: "bold red",
    Doing.WAITING: "yellow",
    Doing.WORKING: "green",
    Doing.IDLE: "",
    Doing.DONE: "dim",
    Doing.SILENT: "dim",
}
_FRAME_LINES = 4  # the title, the heading, the line of keys, and one that stays empty
_NARROW = 100  # columns: below, what an agent holds is left out


@dataclass(slots=True)
class View:
    """What is shown, and what the user has chosen. `trouble`: why the rows are old, "" if not."""

    place: str
    rows: Sequence[FleetRow] = ()
    order: Order = Order.STATE
    first: int = 0
    is_paused: bool = False
    trouble: str = ""

    def scroll(self, count: int, height: int) -> None:
        """Move the first row that is shown."""
        last = max(0, len(self.rows) - max(1, height - _FRAME_LINES))
        self.first = min(max(0, self.first + count), last)


def draw(view: View, console: Console, now: str) -> Group:
    """The whole screen. `now` is the time as the title shows it."""
    title = Text(f"{now}  {count_rows(view.rows)}", style="bold", no_wrap=True)
    title.append(f"  {show_cell(view.place)}", style="dim")
    if view.is_paused:
        title.append("  paused", style="bold yellow")
    if view.trouble:
        title.append(f"  {show_cell(view.trouble)}", style="bold red")
    shown = max(1, console.height - _FRAME_LINES)
    rows = sort_rows(view.rows, view.order)[view.first : view.first + shown]
    foot = Text(KEYS, style="dim", no_wrap=True)
    if len(view.rows) > shown:
        last = view.first + len(rows)
        foot.append(f" · {view.first + 1}-{last} of {len(view.rows)}")
    title.truncate(console.width, overflow="ellipsis")
    foot.truncate(console.width, overflow="ellipsis")
    return Group(title, make_table(rows, is_narrow=console.width < _NARROW), foot)


def make_table(rows: Sequence[FleetRow], *, is_narrow: bool) -> Table:
    """The rows as a table; a narrow one lacks what is held."""
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("agent", no_wrap=True, overflow="ellipsis", max_width=32)
    table.add_column("does", no_wrap=True, min_width=8)
    table.add_column("seen", no_wrap=True, justify="right", min_width=4)
    table.add_column(
        "waits for", no_wrap=True, overflow="ellipsis", max_width=20 if is_narrow else 40
    )
    if not is_narrow:
        table.add_column("holds", no_wrap=True, overflow="ellipsis", max_width=30)
    table.add_column("doing now", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        cells = [
            Text(row.agent),
            Text(row.doing, style=_STYLES[row.doing]),
            Text(show_duration(row.silent_s), style="dim"),
            Text(row.waits_for),
            *([] if is_narrow else [Text(row.holds)]),
            Text(row.text),
        ]
        table.add_row(*cells)
    return table
