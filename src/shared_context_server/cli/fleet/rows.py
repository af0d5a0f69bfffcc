"""Make rows of the fleet from the server's answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared_context_server.cli.show.values import (
    seconds_since,
    show_agent,
    show_cell,
    show_duration,
)

ACTIVITIES = ("blocked", "silent", "waiting", "working", "idle", "away")
"""What an agent does, in the order of what needs attention; as models.Activity."""


class Order(StrEnum):
    STATE = "state"
    AGENT = "agent"
    SEEN = "seen"


@dataclass(frozen=True, slots=True)
class FleetRow:
    """One thread of an agent. All texts are on one line and without control characters. `since_s`: how
    long it has been doing so. `unread`: None if the agent stores no cursor."""

    agent: str
    doing: str
    since_s: float
    silent_s: float
    waits_for: str
    holds: str
    tasks: str
    unread: int | None
    text: str

    @property
    def held(self) -> str:
        """Tasks and leases."""
        return ", ".join(filter(None, (self.tasks, self.holds)))

    @property
    def now(self) -> str:
        """What it waits for, and what it says of itself."""
        return " · ".join(filter(None, (self.waits_for, self.text)))


_ORDERS: dict[Order, Callable[[FleetRow], Any]] = {
    Order.STATE: lambda row: (_rank(row.doing), row.silent_s),
    Order.AGENT: lambda row: row.agent,
    Order.SEEN: lambda row: row.silent_s,
}


def _rank(doing: str) -> int:
    return ACTIVITIES.index(doing) if doing in ACTIVITIES else len(ACTIVITIES)


def make_rows(agents: Iterable[dict[str, Any]]) -> list[FleetRow]:
    """One row for each thread of each agent. The tasks and the unread messages are the agent's, and
    stand in the first row of it."""
    return [
        _make_row(one, thread, is_first=number == 0)
        for one in agents
        for number, thread in enumerate((one, *one["other_instances"]))
    ]


def sort_rows(rows: Iterable[FleetRow], order: Order) -> list[FleetRow]:
    return sorted(rows, key=_ORDERS[order])


def count_rows(rows: Iterable[FleetRow]) -> str:
    """How many threads do what, in words."""
    return describe_counts(Counter(row.doing for row in rows))


def describe_counts(counts: Mapping[str, int]) -> str:
    """How many do what, in words."""
    told = [f"{counts[doing]} {doing}" for doing in ACTIVITIES if counts.get(doing)]
    return ", ".join(told) or "no agents"


def _make_row(agent: dict[str, Any], thread: dict[str, Any], *, is_first: bool) -> FleetRow:
    instance = thread.get("instance", "")  # left out if it is empty
    held = [one for one in agent["holds"] if one.get("instance", "") == instance]
    tasks = agent["tasks"] if is_first else []
    return FleetRow(
        agent=show_agent(agent["agent_id"], instance),
        doing=show_cell(thread["activity"]),
        since_s=seconds_since(thread["doing_since"]),
        silent_s=seconds_since(thread["last_seen"]),
        waits_for=_describe_waiting(thread["waits_for"], thread["blocked_by"]),
        holds=", ".join(f"{show_cell(one['name'])} {_left(one['expires_at'])}" for one in held),
        tasks=", ".join(f"#{one['task_id']} {show_cell(one['title'])}" for one in tasks),
        unread=agent["unread"] if is_first else None,
        text=show_cell(thread["status"] or thread["last_action"]),
    )


def _describe_waiting(waits_for: dict[str, Any] | None, holder: dict[str, Any] | None) -> str:
    if waits_for is None:
        return ""
    words = show_cell(" ".join(filter(None, (waits_for["kind"], waits_for["name"]))))
    if holder is None:
        session_id = waits_for["session_id"]
        return words if session_id is None else f"{words} in {show_cell(session_id)}"
    name = show_agent(holder["holder"], holder.get("instance", ""))
    return f"{words} of {name} ({_left(holder['expires_at'])} left)"


def _left(expires_at: str) -> str:
    return show_duration(-seconds_since(expires_at))
