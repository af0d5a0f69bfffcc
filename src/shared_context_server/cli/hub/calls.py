"""What commands need of a server: call a tool, and follow messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from shared_context_server.cli.failures import CommandFailed, find_exit_code
from shared_context_server.remote.events import StreamEvent

Answer = dict[str, Any]
Call = tuple[str, dict[str, Any]]

_BATCH_FULL = "CONTENT_TOO_LARGE"  # of calls that were not run, since the answers before are large
MAX_BATCH = 100
# Of errors whose own hint names arguments of tools, which a command has as options.
_HINTS = {
    "INVALID_ARGUMENT": "",
    "SESSION_NOT_FOUND": "`scs sessions --status all` lists those that you may read.",
    "MESSAGE_NOT_FOUND": "`scs tail SESSION` shows the messages with their ids.",
    "MEMORY_NOT_FOUND": "`scs memory list` lists the keys; see --scope and --session.",
    "TASK_NOT_FOUND": "`scs tasks list SESSION` lists the tasks with their ids.",
    "CONFLICT": "Read what is there now, then decide whether to repeat the command.",
    "CURSOR_LOST": "Run the command again.",
    "LEASE_LOST": "See what has changed since, and run the command again.",
    "RATE_LIMITED": "Wait a little, then run the command again.",
    "UNAVAILABLE": "Try again later.",
    "UNAUTHENTICATED": "Set SCS_API_KEY, or name the data dir of the server with --data-dir.",
    "PERMISSION_DENIED": "Use a key that may do it (SCS_API_KEY), or another agent (--as).",
}


# Arguments of tools whose options have other names.
_OPTIONS = {
    "start_time": "--since",
    "end_time": "--until",
    "expires_in": "--ttl",
    "fuzzy_threshold": "--threshold",
    "recipients": "--to",
    "parent_message_id": "--parent",
    "depends_on": "--after",
    "content": "the message",
    "session_id": "the session",
    "task_id": "the task",
    "query": "the words",
}


class Hub(Protocol):
    """A server that is called as one agent. `place`: its URL, or the data dir."""

    @property
    def place(self) -> str: ...

    @property
    def agent_id(self) -> str: ...

    def call_all(self, calls: Sequence[Call]) -> list[Answer]:
        """Call tools in order, at most 100. Return their answers, also those of calls that have
        failed (`success`). Raises CommandFailed if the server cannot be asked."""

    def get_fleet(self, limit: int, cursor: str | None) -> Answer:
        """One page of what the agents do. Raises CommandFailed."""

    def follow(
        self, session_id: str | None, last_id: int | None, note: Callable[[str], None]
    ) -> AbstractContextManager[Iterator[StreamEvent]]:
        """Follow a session, or all sessions, without end and over restarts of the server.

        Messages come behind `last_id`, None: from now on. That is a seq of the session, or an id of
        a message with all sessions. After each interruption comes the event `opened`. Raises
        LogSetBack and CommandFailed.
        """


def call(hub: Hub, tool: str, /, **arguments: Any) -> Answer:
    """Call one tool; arguments that are None are left out. Raises CommandFailed if the call fails."""
    given = {name: value for name, value in arguments.items() if value is not None}
    [answer] = hub.call_all([(tool, given)])
    return require_success(answer)


def call_each(hub: Hub, calls: Sequence[Call]) -> list[Answer]:
    """Call any number of tools in order, in as many batches as their answers need. Return all answers,
    also of calls that have failed."""
    answers: list[Answer] = []
    while len(answers) < len(calls):
        batch = hub.call_all(calls[len(answers) : len(answers) + MAX_BATCH])
        full = [number for number, answer in enumerate(batch) if answer.get("code") == _BATCH_FULL]
        taken = batch[: full[0]] if full and batch[full[0]].get("retryable") else batch
        if not taken:
            raise make_failure(str(batch[0].get("error")), _BATCH_FULL)
        answers += taken
    return answers


def require_success(answer: Answer) -> Answer:
    """Return the answer of a call that has succeeded. Raises CommandFailed for another one."""
    if answer.get("success"):
        return answer
    code = str(answer.get("code"))
    raise make_failure(str(answer.get("error")), code, str(answer.get("suggestion") or ""))


def make_failure(message: str, code: str, suggestion: str = "") -> CommandFailed:
    """Return a server's error as the failure of a command."""
    if code == "INVALID_ARGUMENT":
        message = _name_options(message)
    return CommandFailed(message, _HINTS.get(code, suggestion), find_exit_code(code))


def _name_options(message: str) -> str:
    """The message of a wrong argument with the options of the command in place of the arguments."""
    name, colon, rest = message.partition(":")
    argument, dot, index = name.partition(".")
    if not colon or not argument.replace("_", "").isalpha() or not argument.islower():
        return message
    shown = _OPTIONS.get(argument, f"--{argument.replace('_', '-')}")
    return f"{shown}{dot}{index}{colon}{rest}"


def list_fleet(hub: Hub, limit: int) -> Answer:
    """Collect what up to `limit` agents do, as one page."""
    found: list[Any] = []
    cursor: str | None = None
    while True:
        page = hub.get_fleet(min(limit - len(found), _FLEET_PAGE), cursor)
        found += page["agents"]
        cursor = page["next_cursor"]
        if cursor is None or len(found) >= limit or not page["agents"]:
            return {**page, "agents": found, "count": len(found)}


def list_pages(hub: Hub, tool: str, items: str, limit: int, /, **arguments: Any) -> Answer:
    """Collect up to `limit` items of a tool that answers in pages, in an answer like that of one
    page. `next_cursor` says whether there are more."""
    found: list[Any] = []
    cursor: str | None = None
    largest = _PAGE_LIMITS[tool]
    while True:
        wanted = min(limit - len(found), largest)
        page = call(hub, tool, **arguments, limit=wanted, cursor=cursor)
        found += page[items]
        cursor = page["next_cursor"]
        if cursor is None or len(found) >= limit or not page[items]:
            return {**page, items: found} | ({"count": len(found)} if "count" in page else {})


_FLEET_PAGE = 1000
_PAGE_LIMITS = {
    "list_sessions": 200,
    "list_agents": 1000,
    "list_memory": 1000,
    "list_leases": 1000,
    "list_tasks": 200,
    "search_context": 100,
    "get_audit_log": 1000,
}
"""The largest page of each tool."""
