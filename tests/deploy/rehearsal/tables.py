"""Prints what was found, as tables of aligned columns."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Table:
    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        self.rows.append([str(cell) for cell in cells])

    def print(self) -> None:
        lines = [self.columns, *self.rows]
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.columns))]
        print(f"\n{self.title}")
        for number, line in enumerate(lines):
            padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            print("  " + "  ".join(padded).rstrip(), flush=True)
            if number == 0:
                print("  " + "  ".join("-" * width for width in widths))
