"""Make rows of the fleet from the answer of list_agents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared_context_server.cli.show.values import (
    seconds_since,
    show_agent,
    show_cell,
    show_duration,
)

SILENT_AFTER_S = 300.0  # as list_agents, which calls an agent active for so long


class Doing(StrEnum):
    """What an agent does, in the order of what needs attention."""

    BLOCKED = "blocked"
    WAITING = "waiting"
    WORKING = "working"
    IDLE = "idle"
    DONE = "done"
    SILENT = "silent"


class Order(StrEnum):
    STATE = "state"
    AGENT = "agent"
    SEEN = "seen"


@dataclass(frozen=True, slots=True)
class FleetRow:
    """One thread of an agent. All texts are on one line and without control characters."""

    agent: str
    doing: Doing
    silent_s: float
    waits_for: str
    holds: str
    text: str


_ORDERS: dict[Order, Callable[[FleetRow], Any]] = {
    Order.STATE: lambda row: (list(Doing).index(row.doing), row.silent_s),
    Order.AGENT: lambda row: row.agent,
    Order.SEEN: lambda row: row.silent_s,
}


def make_rows(agents: Iterable[dict[str, Any]]) -> list[FleetRow]:
    """One row for each thread of each agent."""
    agents = list(agents)
    holders = {
        (held["session_id"], held["name"]): (show_agent(one["agent_id"]), held["expires_at"])
        for one in agents
        for held in one["holds"]
    }
    return [
        _make_row(one, thread, holders)
        for one in agents
        for thread in (one, *one["other_instances"])
    ]


def sort_rows(rows: Iterable[FleetRow], order: Order) -> list[FleetRow]:
    return sorted(rows, key=_ORDERS[order])


def count_rows(rows: Iterable[FleetRow]) -> str:
    """How many do what, in words."""
    counts = Counter(row.doing for row in rows)
    return ", ".join(f"{counts[doing]} {doing}" for doing in Doing if counts[doing]) or "no agents"


def _make_row(
    agent: dict[str, Any],
    thread: dict[str, Any],
    holders: dict[tuple[str | None, str], tuple[str, str]],
) -> FleetRow:
    silent_s = seconds_since(thread["last_seen"])
    waits_for = thread["waits_for"]
    holder = None
    if waits_for is not None and waits_for["kind"] == "lease":
        holder = holders.get((waits_for["session_id"], waits_for["name"]))
    instance = thread.get("instance", "")
    held = [one for one in agent["holds"] if one.get("instance", "") == instance]
    return FleetRow(
        agent=show_agent(agent["agent_id"], instance),
        doing=_find_doing(thread, is_blocked=holder is not None, silent_s=silent_s),
        silent_s=silent_s,
        waits_for=_describe_waiting(waits_for, holder),
        holds=", ".join(f"{show_cell(one['name'])} {_left(one['expires_at'])}" for one in held),
        text=show_cell(thread["status"] or thread["last_action"]),
    )


def _find_doing(thread: dict[str, Any], *, is_blocked: bool, silent_s: float) -> Doing:
    """What the server knows counts more than what an agent has said of itself."""
    if is_blocked:
        return Doing.BLOCKED
    if thread["waits_for"] is not None:
        return Doing.WAITING
    if silent_s > SILENT_AFTER_S:
        return Doing.SILENT
    return Doing(thread["state"] or Doing.WORKING)


def _describe_waiting(waits_for: dict[str, Any] | None, holder: tuple[str, str] | None) -> str:
    if waits_for is None:
        return ""
    words = show_cell(" ".join(filter(None, (waits_for["kind"], waits_for["name"]))))
    if holder is None:
        session_id = waits_for["session_id"]
        return words if session_id is None else f"{words} in {show_cell(session_id)}"
    name, expires_at = holder
    return f"{words} of {name} ({_left(expires_at)} left)"


def _left(expires_at: str) -> str:
    return show_duration(-seconds_since(expires_at))
