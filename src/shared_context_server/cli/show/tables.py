"""Prints rows: as a table on a terminal, else as tab-separated lines without a heading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from shared_context_server.cli.show.layout import Shape, choose_layout
from shared_context_server.cli.show.values import NOTHING, is_terminal, note

Row = dict[str, Any]

_GAP = "  "
_EMPTY_RANK = 100  # added: a column without any value is left out before the others


class Column(NamedTuple):
    """A column. `show` writes the cell of a row, on one line and without control characters.

    On a terminal that is too narrow, a column that `is_wide` is cut, and those with a `rank` are left
    out, the highest first. All others, such as ids, stay whole. `is_in_pipe` False: only terminals
    show it.
    """

    head: str
    show: Callable[[Row], str]
    is_right: bool = False
    is_wide: bool = False
    rank: int = 0
    is_in_pipe: bool = True


def print_table(columns: Sequence[Column], rows: Iterable[Row], *, nothing: str) -> None:
    """Print the rows. `nothing` is told on a terminal if there are none."""
    if not is_terminal():
        piped = [column for column in columns if column.is_in_pipe]
        for row in rows:
            print("\t".join(column.show(row) for column in piped))
        return
    cells = [[column.show(row) for column in columns] for row in rows]
    if cells:
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
    from rich.text import Text  # noqa: PLC0415

    # Lines are never broken here: what is too long is wrapped by the terminal, and copied whole.
    console = Console(highlight=False, soft_wrap=True)
    texts = list(zip(*cells, strict=True))
    is_empty = [all(text == NOTHING for text in one) for one in texts]
    shapes = [
        Shape(
            max(map(cell_len, (column.head, *texts[number]))),
            column.is_wide,
            column.rank + (_EMPTY_RANK if column.rank and is_empty[number] else 0),
        )
        for number, column in enumerate(columns)
    ]
    layout = choose_layout(shapes, console.width, len(_GAP))
    if layout is None:
        for line in cells:
            _print_card(console, columns, line)
        return

    def print_line(line: Sequence[str], style: str = "") -> None:
        parts = []
        for number, width in layout.items():
            text = Text(line[number], style)
            text.truncate(width, overflow="ellipsis")
            padding = " " * (width - text.cell_len)
            parts.append(Text(padding) + text if columns[number].is_right else text + Text(padding))
        shown = Text(_GAP).join(parts)
        shown.rstrip()
        console.print(shown)

    print_line([column.head for column in columns], "bold")
    for line in cells:
        print_line(line)
    left_out = [
        column.head
        for number, column in enumerate(columns)
        if number not in layout and not is_empty[number]
    ]
    if left_out:
        note(f"Left out, since the terminal is narrow: {', '.join(left_out)}. See --json.")


def _print_card(console: Any, columns: Sequence[Column], line: Sequence[str]) -> None:
    """Print one row over several lines: the first cell, and below it the others with their names."""
    from rich.text import Text  # noqa: PLC0415

    console.print(Text(line[0], "bold"))
    width = max(len(column.head) for column in columns[1:])
    for column, text in zip(columns[1:], line[1:], strict=True):
        console.print(Text(f"  {column.head:<{width}}  ", "dim") + Text(text, style="not dim"))


def tell_more(answer: Row) -> None:
    """Tell that there is more than was asked for."""
    if answer.get("next_cursor") is not None:
        note("There are more: raise --limit.")
