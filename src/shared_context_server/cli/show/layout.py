"""Decide which columns of a table fit into a terminal, and how wide each is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

LEAST_WIDTH = 12  # of a column that is cut


class Shape(NamedTuple):
    """A column: the width of its longest cell; whether its cells may be cut; its rank, which is 0 if it
    may not be left out."""

    width: int
    is_wide: bool
    rank: int


def choose_layout(shapes: Sequence[Shape], width: int, gap: int) -> dict[int, int] | None:
    """Return the widths of the columns that are shown, by their numbers; None if those that may be
    neither cut nor left out do not fit. Columns of the highest rank are left out first, the last of
    them before the others."""
    numbers = list(range(len(shapes)))
    while True:
        shown = {number: shapes[number] for number in numbers}
        left = width - gap * (len(numbers) - 1)
        least = sum(
            min(one.width, LEAST_WIDTH) if one.is_wide else one.width for one in shown.values()
        )
        if least <= left:
            return _share(shown, left)
        spare = max(numbers, key=lambda number: (shapes[number].rank, number))
        if shapes[spare].rank == 0:
            return None
        numbers.remove(spare)


def _share(shown: Mapping[int, Shape], left: int) -> dict[int, int]:
    """Give every column what it needs, and share what is left among those that may be cut."""
    left -= sum(one.width for one in shown.values() if not one.is_wide)
    widths = {number: one.width for number, one in shown.items() if not one.is_wide}
    cut = [number for number, one in shown.items() if one.is_wide]
    wide = sorted(cut, key=lambda number: shown[number].width)  # what one does not need, others get
    for index, number in enumerate(wide):
        widths[number] = min(shown[number].width, left // (len(wide) - index))
        left -= widths[number]
    return {number: widths[number] for number in shown}
