"""The command `sessions`: lists sessions, or shows one."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from cyclopts import Parameter

from shared_context_server.cli.hub.calls import Answer, Hub, call, list_pages
from shared_context_server.cli.hub.options import AsJson, HubOptions, Limit
from shared_context_server.cli.show.messages import MessagePrinter
from shared_context_server.cli.show.tables import Column, print_facts, print_table, tell_more
from shared_context_server.cli.show.values import (
    is_terminal,
    note,
    print_json,
    show_age,
    show_agent,
    show_cell,
    show_moment,
    without_success,
)
from shared_context_server.remote.notices import MAX_CHARS

_SHOWN_MESSAGES = 5


class WhichSessions(StrEnum):
    ACTIVE = "active"
    CLOSED = "closed"
    ALL = "all"


_COLUMNS = (
    Column("session", lambda one: one["session_id"]),
    Column("status", lambda one: show_cell(one["status"])),
    Column("messages", lambda one: str(one["message_count"]), is_right=True, rank=2),
    Column("unread", lambda one: str(one["unread"]), is_right=True, rank=3),
    Column("last activity", lambda one: show_age(one["last_activity"]), rank=1),
    Column("created by", lambda one: show_agent(one["created_by"]), rank=4),
    Column("purpose", lambda one: show_cell(one["purpose"]), is_wide=True),
)


def sessions(
    session: Annotated[str | None, Parameter(help="Id of a session to show.")] = None,
    hub_options: HubOptions = HubOptions(),  # noqa: B008 - frozen
    *,
    status: Annotated[WhichSessions, Parameter(help="Which sessions.")] = WhichSessions.ACTIVE,
    created_by: Annotated[str | None, Parameter(help="Only those of this agent.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List the sessions, the newest first, or show one with its newest messages."""
    with hub_options.open_hub() as hub:
        if session is not None:
            _show_session(hub, session, as_json=as_json)
            return
        answer = list_pages(
            hub, "list_sessions", "sessions", limit, status=status.value, created_by=created_by
        )
        if as_json:
            print_json(without_success(answer))
            return
        print_table(
            _COLUMNS, answer["sessions"], nothing=f"There are no such sessions in {hub.place}."
        )
        tell_more(answer)


def _show_session(hub: Hub, session_id: str, *, as_json: bool) -> None:
    answer = call(hub, "get_session", session_id=session_id)
    if as_json:
        print_json(without_success(answer))
        return
    print_facts(_list_facts(answer))
    if is_terminal() and answer["messages"]:
        print()
        printer = MessagePrinter(as_json=False, names_session=False, max_chars=MAX_CHARS)
        for message in answer["messages"][-_SHOWN_MESSAGES:]:
            printer.print(message)
        note(f"`scs tail {session_id}` shows more messages.")


def _list_facts(answer: Answer) -> list[tuple[str, str]]:
    one = answer["session"]
    return [
        ("session", one["session_id"]),
        ("purpose", show_cell(one["purpose"])),
        ("status", show_cell(one["status"])),
        ("access", show_cell(one["access"])),
        ("created by", show_agent(one["created_by"])),
        ("created", show_moment(one["created_at"])),
        ("closed", show_moment(one["closed_at"])),
        ("last activity", show_age(one["last_activity"])),
        ("participants", ", ".join(map(show_agent, answer["participants"])) or "-"),
        ("messages", str(answer["message_count"])),
        ("unread", str(one["unread"])),
        ("metadata", show_cell(one["metadata"] or None)),
    ]
