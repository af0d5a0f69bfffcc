"""Place who waits for whom on a plane, for an SVG: waiters stand left of whom they wait for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared_context_server.services.wait_graph import (
    Thread,
    Wait,
    WaitGraph,
    find_circles,
    list_threads,
)

MAX_DRAWN = 30  # waits; a table has all of them
NODE_WIDTH, NODE_HEIGHT = 168, 42
COLUMN_GAP, ROW_GAP, MARGIN = 132, 16, 12
RETURN_DEPTH, RETURN_ROWS = 34, 0.5  # of the line that closes a circle, below its nodes
_NAME_CHARS, _LABEL_CHARS = 21, 17


@dataclass(frozen=True, slots=True)
class Node:
    """A box. `waits`: it waits for another one. `note`: a second line."""

    x: int
    y: int
    name: str
    note: str
    full_name: str
    waits: bool
    is_deadlock: bool
    width: int = NODE_WIDTH
    height: int = NODE_HEIGHT


@dataclass(frozen=True, slots=True)
class Edge:
    """A line from a waiter to a holder, with the lease as its label."""

    path: str
    label: str
    label_x: int
    label_y: int
    is_deadlock: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """The drawing with its size. `summary` says in one line what it shows. `left_out`: waits that are
    not drawn."""

    nodes: list[Node]
    edges: list[Edge]
    width: int
    height: int
    summary: str
    left_out: int


def draw(graph: WaitGraph) -> Drawing | None:
    """Return the drawing of the first MAX_DRAWN waits; None if nobody waits."""
    waits = graph.waits[:MAX_DRAWN]
    if not waits:
        return None
    places, rows = _place(waits)
    deepest = max(column for column, _ in places.values())
    stuck = {wait.waiter for wait in waits if wait.is_deadlock}
    waiters = {wait.waiter for wait in waits}

    def position(thread: Thread) -> tuple[int, int]:
        column, row = places[thread]
        x = MARGIN + (deepest - column) * (NODE_WIDTH + COLUMN_GAP)
        return x, MARGIN + round(row * (NODE_HEIGHT + ROW_GAP))

    nodes = [
        Node(
            *position(thread),
            name=_cut(thread.agent_id, _NAME_CHARS),
            note=_cut(thread.instance, _NAME_CHARS),
            full_name=" ".join(filter(None, thread)),
            waits=thread in waiters,
            is_deadlock=thread in stuck,
        )
        for thread in places
    ]
    edges = [_connect(wait, position(wait.waiter), position(wait.holder)) for wait in waits]
    return Drawing(
        nodes=nodes,
        edges=edges,
        width=2 * MARGIN + (deepest + 1) * NODE_WIDTH + deepest * COLUMN_GAP,
        height=round(2 * MARGIN + rows * (NODE_HEIGHT + ROW_GAP) - ROW_GAP),
        summary=_summarize(graph),
        left_out=len(graph.waits) - len(waits),
    )


def _place(waits: Sequence[Wait]) -> tuple[dict[Thread, tuple[int, float]], float]:
    """Return the column of each instance, counted from the right, and its row; and the number of rows.

    Each instance waits for one other at most, so without the waits that close circles these are trees.
    Leaves get rows one after the other, others the middle of those that wait for them.
    """
    waiting_for: defaultdict[Thread, list[Thread]] = defaultdict(list)
    holder_of = {wait.waiter: wait.holder for wait in waits}
    circles = find_circles(holder_of)
    ends = {circle[-1]: circle for circle in circles}
    in_circle = {thread for circle in circles for thread in circle}
    for waiter, holder in holder_of.items():
        if waiter not in ends:
            waiting_for[holder].append(waiter)
    for waiters in waiting_for.values():
        waiters.sort(
            key=lambda one: one in in_circle
        )  # the line back passes below: so they come last
    places: dict[Thread, tuple[int, float]] = {}
    row = 0.0
    for root in (one for one in list_threads(waits) if one not in holder_of or one in ends):
        for thread, column in _walk(root, waiting_for):
            rows = [places[one][1] for one in waiting_for[thread]]
            if not rows:
                places[thread] = column, row
                row += 1
            else:
                places[thread] = (
                    column,
                    rows[-1] if thread in in_circle else (rows[0] + rows[-1]) / 2,
                )
        if root in ends:
            row += RETURN_ROWS
    return places, row


def _walk(root: Thread, waiting_for: Mapping[Thread, Sequence[Thread]]) -> list[tuple[Thread, int]]:
    """Return the tree below a root with the column of each, children before their parents and in
    their order."""
    found: list[tuple[Thread, int]] = []
    stack = [(root, 0)]
    while stack:
        thread, column = stack.pop()
        found.append((thread, column))
        stack += [(one, column + 1) for one in waiting_for.get(thread, ())]
    return found[::-1]


def _connect(wait: Wait, start: tuple[int, int], end: tuple[int, int]) -> Edge:
    label = _cut(wait.name, _LABEL_CHARS)
    if start[0] < end[0]:
        x1, y1 = start[0] + NODE_WIDTH, start[1] + NODE_HEIGHT // 2
        x2, y2 = end[0] - 2, end[1] + NODE_HEIGHT // 2
        middle = (x1 + x2) // 2
        path = f"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"
        return Edge(path, label, middle, (y1 + y2) // 2 - 6, wait.is_deadlock)
    # Back to the first of the circle: below all of them.
    x1, y1 = start[0] + NODE_WIDTH // 2, start[1] + NODE_HEIGHT
    x2, y2 = end[0] + NODE_WIDTH // 2, end[1] + NODE_HEIGHT + 2
    low = max(y1, y2) + RETURN_DEPTH
    path = f"M{x1} {y1}C{x1} {low} {x2} {low} {x2} {y2}"
    return Edge(path, label, (x1 + x2) // 2, low - 12, wait.is_deadlock)


def _summarize(graph: WaitGraph) -> str:
    waits = [
        f"{wait.waiter.agent_id} waits for {wait.name}, held by {wait.holder.agent_id}"
        for wait in graph.waits[:MAX_DRAWN]
    ]
    return "; ".join(waits) + "."


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: chars - 1] + "…"
