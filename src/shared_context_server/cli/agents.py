"""The commands `agents` and `leases`: what the agents do, and what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from shared_context_server.cli.hub.calls import list_pages
from shared_context_server.cli.hub.options import AsJson, HubOptions, Limit
from shared_context_server.cli.show.tables import Column, print_table, tell_more
from shared_context_server.cli.show.values import (
    NOTHING,
    is_terminal,
    print_json,
    show_age,
    show_agent,
    show_cell,
    show_left,
    without_success,
)

_AGENTS = (
    Column("agent", lambda one: show_agent(one["agent_id"], one.get("instance", ""))),
    Column("type", lambda one: show_cell(one["agent_type"]), rank=4),
    Column("active", lambda one: show_cell(one["active"]), rank=5),
    Column("state", lambda one: show_cell(one["state"])),
    Column("last seen", lambda one: show_age(one["last_seen"]), rank=1),
    Column("waits for", lambda one: _show_waiting(one["waits_for"]), is_wide=True, rank=2),
    Column("holds", lambda one: _show_held(one["holds"]), is_wide=True, rank=3),
    Column("status", lambda one: show_cell(one["status"] or one["last_action"]), is_wide=True),
    Column("waits in", lambda one: _show_place(one["waits_for"]), rank=6, is_in_pipe=False),
)
_LEASES = (
    Column("lease", lambda one: show_cell(one["name"])),
    Column("session", lambda one: show_cell(one["session_id"])),
    Column("holder", lambda one: show_agent(one["holder"], one.get("instance", ""))),
    Column("time left", lambda one: show_left(one["expires_at"]), rank=1),
)


def agents(
    hub_options: HubOptions = HubOptions(),  # noqa: B008 - frozen
    *,
    session: Annotated[str | None, Parameter(help="Only those in this session.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List the agents, the last seen first: state, what each waits for and holds, and its status."""
    with hub_options.open_hub() as hub:
        answer = list_pages(hub, "list_agents", "agents", limit, session_id=session)
        if as_json:
            print_json(without_success(answer))
            return
        rows = [row for one in answer["agents"] for row in _list_instances(one)]
        print_table(_AGENTS, rows, nothing=f"No agent has called {hub.place} yet.")
        tell_more(answer)


def leases(
    hub_options: HubOptions = HubOptions(),  # noqa: B008 - frozen
    *,
    session: Annotated[
        str | None, Parameter(help="Only those of this session; default: all that agents hold.")
    ] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List who holds which leases, and how much longer."""
    with hub_options.open_hub() as hub:
        if session is not None:
            answer = list_pages(hub, "list_leases", "leases", limit, session_id=session)
            found = answer["leases"]
        else:
            answer = list_pages(hub, "list_agents", "agents", 1000)
            held = [(one["agent_id"], lease) for one in answer["agents"] for lease in one["holds"]]
            found = [{**lease, "holder": agent} for agent, lease in held][:limit]
        if as_json:
            print_json({"leases": found, "count": len(found)})
            return
        print_table(_LEASES, found, nothing="Nobody holds a lease.")


def _show_waiting(waits_for: dict[str, Any] | None) -> str:
    """What an agent waits for, in a few words. On a terminal the session has its own column, so that
    its id is never cut."""
    if waits_for is None:
        return NOTHING
    words = [waits_for["kind"], waits_for["name"]]
    if not is_terminal() and waits_for["session_id"]:
        words += ["in", waits_for["session_id"]]
    return show_cell(" ".join(filter(None, words)))


def _show_place(waits_for: dict[str, Any] | None) -> str:
    return show_cell(None if waits_for is None else waits_for["session_id"])


def _show_held(holds: Sequence[dict[str, Any]]) -> str:
    return show_cell(", ".join(held["name"] for held in holds))


def _list_instances(agent: dict[str, Any]) -> list[dict[str, Any]]:
    """An agent's threads as rows; the first has all that the agent holds."""
    others = [{**agent, **one, "holds": []} for one in agent["other_instances"]]
    return [agent, *others]
