"""What each kind of caller is answered, by class of tool, and the class of each tool.

The tests take tools, resources, prompts and pages from the server. One that this table lacks fails.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

from tests.tool_calls import RIGHT_CALLS, SESSION


class Kind(Enum):
    """Who calls. All but the outsider belong to the invited session that the calls name."""

    NOBODY = "without a valid credential"
    MISNAMED = "with a valid credential that does not allow the claimed identity"
    OUTSIDER = "not invited"
    READER = "invited, may read only"
    WRITER = "invited, may write only"
    MEMBER = "invited"
    CREATOR = "creator"
    ADMIN = "admin"


class Does(Enum):
    """What a tool does, as far as it decides who may call it."""

    LETS_IN = "gives a credential to the holder of a key"
    READS = "reads what the caller may read anyway"
    WRITES = "writes what is the caller's own or everyone's"
    READS_SESSION = "reads in the session it names"
    WRITES_SESSION = "writes in the session it names"
    WORKS = "takes work in the session it names, so that it reads and writes"
    CONTROLS = "closes or deletes the session it names"
    ADMINISTERS = "is for admins"


OK = ""
UNKNOWN, DENIED, MISSING = "UNAUTHENTICATED", "PERMISSION_DENIED", "SESSION_NOT_FOUND"

VALID = (Kind.OUTSIDER, Kind.READER, Kind.WRITER, Kind.MEMBER, Kind.CREATOR, Kind.ADMIN)
_BY_VALID: dict[Does, tuple[str, ...]] = {
    #                       outsider reader  writer  member  creator admin
    Does.LETS_IN:          (OK,      OK,     OK,     OK,     OK,     OK),
    Does.READS:            (OK,      OK,     DENIED, OK,     OK,     OK),
    Does.WRITES:           (OK,      DENIED, OK,     OK,     OK,     OK),
    Does.READS_SESSION:    (MISSING, OK,     DENIED, OK,     OK,     OK),
    Does.WRITES_SESSION:   (MISSING, DENIED, OK,     OK,     OK,     OK),
    Does.WORKS:            (MISSING, DENIED, DENIED, OK,     OK,     OK),
    Does.CONTROLS:         (MISSING, DENIED, DENIED, DENIED, OK,     OK),
    Does.ADMINISTERS:      (DENIED,  DENIED, DENIED, DENIED, DENIED, OK),
}  # fmt: skip
ANSWERS: dict[Does, dict[Kind, str]] = {
    does: dict(zip(VALID, codes, strict=True)) | {Kind.NOBODY: UNKNOWN, Kind.MISNAMED: DENIED}
    for does, codes in _BY_VALID.items()
}


class Row(NamedTuple):
    """A tool's class and its arguments. `own`: errors of the tool itself, which come after the check
    of who calls. `alone`: its class when no session is named, if it need not be."""

    does: Does
    own: frozenset[str] = frozenset()
    alone: Does | None = None


_CLOCK = frozenset({"CLOCK_NOT_RUNNING"})
_STATE = frozenset({"LEASE_LOST", "CONFLICT", "MEMORY_NOT_FOUND", "TASK_NOT_FOUND"})

ROWS: dict[str, Row] = {
    "authenticate_agent": Row(Does.LETS_IN),
    "refresh_token": Row(Does.READS, frozenset({"INVALID_ARGUMENT"})),
    "revoke_token": Row(Does.READS, frozenset({"INVALID_ARGUMENT"})),
    "create_session": Row(Does.WRITES),
    "list_sessions": Row(Does.READS),
    "get_session": Row(Does.READS_SESSION),
    "add_message": Row(Does.WRITES_SESSION),
    "get_messages": Row(Does.READS_SESSION),
    "wait_for_messages": Row(Does.READS_SESSION),
    "acknowledge_message": Row(Does.WORKS),
    "mark_read": Row(Does.READS_SESSION),
    "get_digest": Row(Does.READS_SESSION),
    "search_context": Row(Does.READS_SESSION, alone=Does.READS),
    "set_memory": Row(Does.WRITES_SESSION, alone=Does.WRITES),
    "get_memory": Row(Does.READS_SESSION, _STATE, alone=Does.READS),
    "list_memory": Row(Does.READS_SESSION, alone=Does.READS),
    "delete_memory": Row(Does.WRITES_SESSION, _STATE, alone=Does.WRITES),
    "acquire_lease": Row(Does.WRITES_SESSION, alone=Does.WRITES),
    "release_lease": Row(Does.WRITES_SESSION, _STATE, alone=Does.WRITES),
    "list_leases": Row(Does.READS_SESSION, alone=Does.READS),
    "add_task": Row(Does.WORKS),
    "claim_task": Row(Does.WORKS),
    "finish_task": Row(Does.WORKS, _STATE),
    "list_tasks": Row(Does.READS_SESSION),
    "list_agents": Row(Does.READS_SESSION, alone=Does.READS),
    "set_status": Row(Does.WRITES),
    "get_audit_log": Row(Does.ADMINISTERS, alone=Does.ADMINISTERS),
    "get_time": Row(Does.READS, _CLOCK),
    "get_temperature": Row(Does.READS, _CLOCK),
    "get_humidity": Row(Does.READS, _CLOCK),
    "get_all_sensors": Row(Does.READS, _CLOCK),
    "close_session": Row(Does.CONTROLS),
    "delete_session": Row(Does.CONTROLS),
}

RESOURCES: dict[str, Does] = {
    "session://{session_id}": Does.READS_SESSION,
    "session://{session_id}/messages": Does.READS_SESSION,
    "session://{session_id}/memory": Does.READS_SESSION,
    "session://{session_id}/memory/{key}": Does.READS_SESSION,
    "session://{session_id}/leases": Does.READS_SESSION,
    "session://{session_id}/tasks": Does.READS_SESSION,
}
"""Those of a session, by template."""

OWN_RESOURCES = {"agent://{agent_id}/memory", "agent://{agent_id}/memory/{key}"}
"""Those of one agent, which nobody else reads, an admin neither."""

PROMPTS: dict[str, dict[str, str]] = {
    "set_up_collaboration": {"purpose": "x"},
    "catch_up": {"session_id": SESSION},
    "hand_over": {"session_id": SESSION},
}
"""Prompts are text that tells nothing of what is stored; each with its arguments."""

PAGES: dict[str, Does] = {
    "": Does.READS,
    "/sessions": Does.READS,
    "/sessions/{session_id}": Does.READS_SESSION,
    "/sessions/{session_id}/timeline": Does.READS_SESSION,
    "/sessions/{session_id}/messages/{message_id}": Does.READS_SESSION,
    "/sessions/{session_id}/close": Does.CONTROLS,
    "/sessions/{session_id}/delete": Does.CONTROLS,
    "/sessions/{session_id}/export.jsonl": Does.READS_SESSION,
    "/sessions/{session_id}/export.md": Does.READS_SESSION,
    "/search?query=quartz": Does.READS,
    "/tasks": Does.READS,
    "/tasks/{session_id}/1": Does.READS_SESSION,
    "/memory?session_id={session_id}": Does.READS_SESSION,
    "/memory/entry?session_id={session_id}&scope=shared&key=k": Does.READS_SESSION,
    "/leases": Does.READS,
    "/clock": Does.READS,
    "/audit": Does.ADMINISTERS,
    "/server": Does.ADMINISTERS,
    "/keys": Does.ADMINISTERS,
    "/events/fleet": Does.READS,
    "/events/sessions": Does.READS,
    "/events/sessions/{session_id}": Does.READS_SESSION,
    "/events/tasks": Does.READS,
    "/events/memory": Does.READS,
    "/events/leases": Does.READS,
    "/events/clock": Does.READS,
    "/events/server": Does.ADMINISTERS,
}
"""What GET answers on the dashboard, below /ui."""

CONFIRMATIONS = {
    "/memory/edit",
    "/memory/delete",
    "/keys/created",
    "/keys/rotate",
    "/keys/revoke",
}
"""Pages for one entry or key, before or after a POST; tests/ui has who may see them."""


class ToolCall(NamedTuple):
    """A call that is right but for who calls."""

    tool: str
    arguments: dict[str, Any]
    does: Does
    own: frozenset[str]


def make_calls(session_id: str, message_id: int) -> list[ToolCall]:
    """The right calls, those that end the session last; tools that need no session with one and without."""
    of_alice = {"key": "own"}
    calls = [ToolCall("get_memory", of_alice, Does.READS, _STATE)]
    for tool, right in RIGHT_CALLS:
        row = ROWS[tool]
        arguments = dict(right)
        names_session = "session_id" in arguments or row.alone is not None
        if row.alone is not None:
            alone = {name: value for name, value in arguments.items() if name != "session_id"}
            calls.append(ToolCall(tool, alone, row.alone, row.own))
        if tool == "list_sessions":
            arguments["limit"] = 100
        if names_session:
            arguments["session_id"] = session_id
        if "message_id" in arguments:
            arguments["message_id"] = message_id
        calls.append(ToolCall(tool, arguments, row.does, row.own))
    return calls
