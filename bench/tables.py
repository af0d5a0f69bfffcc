"""Tables as a page of the documentation shows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def print_table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """In Markdown, under a line that says what was measured."""
    print(f"\n{title}\n")
    print(f"| {' | '.join(head)} |")
    print(f"| --- |{' ---: |' * (len(head) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
