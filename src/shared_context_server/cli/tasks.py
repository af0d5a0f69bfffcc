"""The command `tasks`: the board of a session."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from cyclopts import App, Parameter

from shared_context_server.cli.failures import CommandFailed
from shared_context_server.cli.help_texts import end_of_help
from shared_context_server.cli.hub.calls import call, list_pages
from shared_context_server.cli.hub.options import AsJson, HubOptions, Limit, Quiet
from shared_context_server.cli.show.tables import Column, print_table, tell_more
from shared_context_server.cli.show.values import (
    print_json,
    show_agent,
    show_cell,
    show_left,
    without_success,
)
from shared_context_server.cli.texts import read_text
from shared_context_server.remote import exits

app = App(name="tasks", help="List, add and finish the tasks of a session.")

_CLAIM_S = 60  # a claim that is finished by the next call


class State(StrEnum):
    READY = "ready"
    BLOCKED = "blocked"
    CLAIMED = "claimed"
    DONE = "done"
    FAILED = "failed"


class Outcome(StrEnum):
    DONE = "done"
    FAILED = "failed"
    RELEASED = "released"


Session = Annotated[str, Parameter(help="Id of the session.")]

_COLUMNS = (
    Column("id", lambda one: str(one["id"]), is_right=True),
    Column("state", lambda one: show_cell(one["state"])),
    Column("priority", lambda one: str(one["priority"]), is_right=True, rank=4),
    Column(
        "claimed by",
        lambda one: show_agent(one["claimed_by"]) if one["claimed_by"] else "-",
        rank=1,
    ),
    Column("time left", lambda one: show_left(one["expires_at"]), rank=2),
    Column("depends on", lambda one: ",".join(map(str, one["depends_on"])) or "-", rank=3),
    Column("title", lambda one: show_cell(one["title"]), is_wide=True),
)


@app.command(name="list", help_epilogue=end_of_help("tasks list"))
def list_(
    session: Session,
    hub_options: HubOptions = HubOptions(),  # noqa: B008 - frozen
    *,
    state: Annotated[State | None, Parameter(help="Only those in this state.")] = None,
    assignee: Annotated[str | None, Parameter(help="Only those for this agent.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List the tasks of a session by their ids."""
    with hub_options.open_hub() as hub:
        answer = list_pages(
            hub,
            "list_tasks",
            "tasks",
            limit,
            session_id=session,
            state=None if state is None else state.value,
            assignee=assignee,
        )
        if as_json:
            print_json(without_success(answer))
            return
        print_table(_COLUMNS, answer["tasks"], nothing="There are no such tasks.")
        tell_more(answer)


@app.command(help_epilogue=end_of_help("tasks add"))
def add(
    session: Session,
    *title: Annotated[str, Parameter(help="What is to be done, in one line.")],
    hub_options: HubOptions = HubOptions(),  # noqa: B008 - frozen
    body: Annotated[str | None, Parameter(help="The details; - reads them from stdin.")] = None,
    after: Annotated[
        tuple[int, ...], Parameter(negative="", help="Task that comes first; repeatable.")
    ] = (),
    priority: Annotated[int, Parameter(help="Higher ones are claimed first.")] = 0,
    assignee: Annotated[str | None, Parameter(help="Only this agent may claim it.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Put a task on the board of a session, and print its id."""
    with hub_options.open_hub() as hub:
        answer = call(
            hub,
            "add_task",
            session_id=session,
            title=" ".join(title),
            body=None if body is None else read_text([body]),
            depends_on=list(after) or None,
            priority=priority,
            assignee=assignee,
        )
    _print_task(answer["task"], quiet=quiet, as_json=as_json)


@app.command(help_epilogue=end_of_help("tasks done"))
def done(
    session: Session,
    task: Annotated[int, Parameter(help="Id of the task.")],
    hub_options: HubOptions = HubOptions(),  # noqa: B008 - frozen
    *,
    outcome: Annotated[Outcome, Parameter(help="How it has ended.")] = Outcome.DONE,
    result: Annotated[str | None, Parameter(help="A text that stays with it.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Claim a task and finish it. Exit code 5 if another agent has it, or it waits for others."""
    with hub_options.open_hub() as hub:
        claim = call(hub, "claim_task", session_id=session, task_id=task, ttl_seconds=_CLAIM_S)
        if claim["task"] is None:
            hint = claim.get("hint") or ""
            raise CommandFailed(f"Task {task} cannot be claimed.", hint, exits.CONFLICT)
        answer = call(
            hub,
            "finish_task",
            session_id=session,
            task_id=task,
            fencing_token=claim["task"]["fencing_token"],
            outcome=outcome.value,
            result=result,
        )
    _print_task(answer["task"], quiet=quiet, as_json=as_json)


def _print_task(task: dict[str, Any], *, quiet: bool, as_json: bool) -> None:
    if as_json:
        print_json(task)
    elif not quiet:
        print(f"{task['id']}\t{task['state']}")
