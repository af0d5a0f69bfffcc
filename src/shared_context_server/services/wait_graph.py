"""Who waits for whom: the waits of instances for what others hold, and the circles among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from shared_context_server.storage.contract import SurveyedInstance


class Thread(NamedTuple):
    """An instance of an agent; "" for calls that name none."""

    agent_id: str
    instance: str


@dataclass(frozen=True, slots=True)
class Wait:
    """An instance that waits for a lease of another one. `name`: the lease's; that of a claim is
    task:N. `is_deadlock`: the wait is part of a circle, which only an expiry or a person ends."""

    waiter: Thread
    holder: Thread
    session_id: str | None
    name: str
    since: datetime
    expires_at: datetime
    is_deadlock: bool


@dataclass(frozen=True, slots=True)
class WaitGraph:
    """All waits, those of deadlocks first. `deadlocks`: the instances of each circle, in the order of
    waiting: each waits for the next one, the last for the first."""

    waits: list[Wait]
    deadlocks: list[list[Thread]]


def make_wait_graph(blocks: Iterable[SurveyedInstance]) -> WaitGraph:
    """Return the graph of these blocked instances. An instance waits for one thing at a time, so each
    has at most one edge, and each is part of at most one circle."""
    waits = [_to_wait(one) for one in blocks if one.blocked_by is not None]
    circles = find_circles({wait.waiter: wait.holder for wait in waits})
    stuck = {thread for circle in circles for thread in circle}
    marked = [wait if wait.waiter not in stuck else _mark(wait) for wait in waits]
    marked.sort(key=lambda wait: not wait.is_deadlock)
    return WaitGraph(marked, circles)


def find_circles(waits_for: Mapping[Thread, Thread]) -> list[list[Thread]]:
    """Return the circles of a graph in which each node has at most one edge. Takes linear time."""
    circles: list[list[Thread]] = []
    walk_of: dict[Thread, int] = {}
    for number, start in enumerate(waits_for):
        walk: list[Thread] = []
        node: Thread | None = start
        while node is not None and node not in walk_of:
            walk_of[node] = number
            walk.append(node)
            node = waits_for.get(node)
        if node is not None and walk_of[node] == number:
            circles.append(walk[walk.index(node) :])
    return circles


def list_threads(waits: Sequence[Wait]) -> list[Thread]:
    """Return the instances that wait or are waited for, each once, waiters first."""
    return list(dict.fromkeys([*(w.waiter for w in waits), *(w.holder for w in waits)]))


def _to_wait(one: SurveyedInstance) -> Wait:
    lease = one.blocked_by
    assert lease is not None
    return Wait(
        waiter=Thread(one.instance.agent_id, one.instance.instance),
        holder=Thread(lease.holder, lease.instance),
        session_id=lease.session_id,
        name=lease.name,
        since=one.instance.waits_since or one.instance.last_seen,
        expires_at=lease.expires_at,
        is_deadlock=False,
    )


def _mark(wait: Wait) -> Wait:
    return Wait(
        wait.waiter, wait.holder, wait.session_id, wait.name, wait.since, wait.expires_at, True
    )
