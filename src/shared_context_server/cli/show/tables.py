"""Prints rows: as a table on a terminal, else as tab-separated lines without a heading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from shared_context_server.cli.show.values import is_terminal, note

Row = dict[str, Any]

_GAP = 2  # spaces between columns
_LEAST_WIDTH = 12  # of a column that is cut


class Column(NamedTuple):
    """`show` writes the cell of a row, on one line and without control characters. `is_wide`: on a
    narrow terminal this column is cut, the others are not."""

    head: str
    show: Callable[[Row], str]
    is_right: bool = False
    is_wide: bool = False


def print_table(columns: Sequence[Column], rows: Iterable[Row], *, nothing: str) -> None:
    """Print the rows. `nothing` is told on a terminal if there are none."""
    cells = [[column.show(row) for column in columns] for row in rows]
    if not is_terminal():
        for line in cells:
            print("\t".join(line))
    elif cells:
        _print_on_terminal(columns, cells)
    else:
        note(nothing)


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print names and values, a line each: aligned on a terminal, else separated by a tab."""
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        print(f"{name:<{width}}  {value}" if is_terminal() else f"{name}\t{value}")


def _print_on_terminal(columns: Sequence[Column], cells: list[list[str]]) -> None:
    # Imported here: a pipe needs none of it.
    from rich.cells import cell_len  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False)
    widths = [
        max(cell_len(text) for text in (column.head, *texts))
        for column, texts in zip(columns, zip(*cells, strict=True), strict=True)
    ]
    fixed = sum(width for column, width in zip(columns, widths, strict=True) if not column.is_wide)
    left = console.width - fixed - _GAP * (len(columns) - 1)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        table.add_column(
            column.head,
            justify="right" if column.is_right else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=min(width, max(_LEAST_WIDTH, left)) if column.is_wide else width,
        )
    for line in cells:
        table.add_row(*map(Text, line))
    console.print(table)


def tell_more(answer: Row) -> None:
    """Tell that there is more than was asked for."""
    if answer.get("next_cursor") is not None:
        note("There are more: raise --limit.")
