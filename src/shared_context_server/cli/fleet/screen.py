"""Draw the fleet for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from shared_context_server.cli.fleet.rows import FleetRow, Order, sort_rows
from shared_context_server.cli.show.values import show_cell, show_duration

_KEYS = "q quit · s by state · a by agent · l by last seen · ↓ ↑ scroll · space pause"
_SHORT_KEYS = "q quit · s a l sort · ↓ ↑ scroll · space pause"

_STYLES = {
    "blocked": "bold red",
    "silent": "magenta",
    "waiting": "yellow",
    "working": "green",
    "idle": "",
    "away": "dim",
}
_FRAME_LINES = 4  # the title, the heading, the line of keys, and one that stays empty
_NARROW = 100  # columns
_VERY_NARROW = 70  # below, what an agent holds is left out


@dataclass(slots=True)
class View:
    """What is shown, and what the user has chosen. `counts`: how many do what. `trouble`: why the rows
    are old, "" if not."""

    place: str
    rows: Sequence[FleetRow] = ()
    counts: str = ""
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
    width, height = console.size
    view.scroll(0, height)  # after a resize, or if there are fewer rows
    title = Text(f"{now}  {view.counts}", style="bold", no_wrap=True)
    if view.is_paused:
        title.append("  paused", style="bold yellow")
    if view.trouble:
        title.append(f"  {show_cell(view.trouble)}", style="bold red")
    title.append(f"  {show_cell(view.place)}", style="dim")
    shown = max(1, height - _FRAME_LINES)
    rows = sort_rows(view.rows, view.order)[view.first : view.first + shown]
    foot = Text(no_wrap=True, style="dim")
    if len(view.rows) > shown:
        last = view.first + len(rows)
        foot.append(f"{view.first + 1}-{last} of {len(view.rows)} · ")
    foot.append(_KEYS if width >= _NARROW else _SHORT_KEYS)
    title.truncate(width, overflow="ellipsis")
    foot.truncate(width, overflow="ellipsis")
    return Group(title, make_table(rows, width), foot)


def make_table(rows: Sequence[FleetRow], width: int) -> Table:
    """The rows as a table for so many columns. A narrow one has no column of its own for what an agent
    waits for, a very narrow one none for what it holds."""
    is_narrow = width < _NARROW
    has_held = width >= _VERY_NARROW
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", expand=True)
    table.add_column("agent", no_wrap=True, overflow="ellipsis", max_width=20 if is_narrow else 32)
    table.add_column("does", no_wrap=True, min_width=7)
    table.add_column("since", no_wrap=True, justify="right", min_width=5)
    table.add_column("unread", no_wrap=True, justify="right", min_width=6)
    if not is_narrow:
        table.add_column("waits for", no_wrap=True, overflow="ellipsis", max_width=width // 5)
    if has_held:
        table.add_column("holds", no_wrap=True, overflow="ellipsis", max_width=width // 5)
    table.add_column("doing now", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        cells = [
            Text(row.agent),
            Text(row.doing, style=_STYLES.get(row.doing, "")),
            Text(show_duration(row.since_s), style="dim"),
            _show_unread(row.unread),
            *([] if is_narrow else [Text(row.waits_for)]),
            *([Text(row.held)] if has_held else []),
            Text(row.now if is_narrow else row.text),
        ]
        table.add_row(*cells)
    return table


def _show_unread(count: int | None) -> Text:
    if count is None:
        return Text("-", style="dim")
    return Text(str(count), style="bold" if count else "dim")
