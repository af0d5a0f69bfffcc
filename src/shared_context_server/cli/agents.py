"""The commands `agents` and `leases`: what the agents do, and what they hold."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from shared_context_server.cli.hub.calls import list_pages
from shared_context_server.cli.hub.options import AsJson, HubOptions, Limit
from shared_context_server.cli.show.tables import Column, print_table, tell_more
from shared_context_server.cli.show.values import (
    print_json,
    show_age,
    show_agent,
    show_cell,
    show_left,
    without_success,
)

_AGENTS = (
    Column("agent", lambda one: show_agent(one["agent_id"], one.get("instance", ""))),
    Column("type", lambda one: show_cell(one["agent_type"])),
    Column("active", lambda one: show_cell(one["active"])),
    Column("state", lambda one: show_cell(one["state"])),
    Column("last seen", lambda one: show_age(one["last_seen"])),
    Column("waits for", lambda one: show_waiting(one["waits_for"])),
    Column("holds", lambda one: show_cell(", ".join(held["name"] for held in one["holds"]))),
    Column("status", lambda one: show_cell(one["status"] or one["last_action"]), is_wide=True),
)
_LEASES = (
    Column("lease", lambda one: show_cell(one["name"])),
    Column("session", lambda one: show_cell(one["session_id"])),
    Column("holder", lambda one: show_agent(one["holder"], one.get("instance", ""))),
    Column("time left", lambda one: show_left(one["expires_at"])),
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


def show_waiting(waits_for: dict[str, Any] | None) -> str:
    """What an agent waits for, in a few words."""
    if waits_for is None:
        return "-"
    name = waits_for["name"]
    where = waits_for["session_id"]
    words = [waits_for["kind"], *([name] if name else []), *(["in", where] if where else [])]
    return show_cell(" ".join(words))


def _list_instances(agent: dict[str, Any]) -> list[dict[str, Any]]:
    """An agent's threads as rows; the first has all that the agent holds."""
    others = [{**agent, **one, "holds": []} for one in agent["other_instances"]]
    return [agent, *others]
