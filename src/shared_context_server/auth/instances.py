"""Read the names of a client's thread, its tool use and its trace from a request.

A thread's name tells apart the sub-agents and windows of one client. It becomes `Caller.instance`. It
is a name and no credential: nothing is allowed or shown because of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from shared_context_server.auth.agent_names import clean_agent_name
from shared_context_server.auth.connection import Connection
from shared_context_server.models import MAX_INSTANCE_CHARS, Caller
from shared_context_server.observability.traces import TraceParent, read_trace_parent

INSTANCE_HEADER: Final = "X-Agent-Instance"
THREAD_NAMES: Final = (
    "threadId",  # Codex
    "ai.opencode/sessionID",
    "antigravity.google/conversation_id",
)
"""The members of `_meta` that name a thread, each by one client."""
TOOL_USE: Final = "claudecode/toolUseId"
"""The member of `_meta` with the id of one tool use. Claude Code sends another one with each call, and
the same one when it repeats a call. So it names no thread."""
TRACE_PARENT: Final = "traceparent"
TRACE_STATE: Final = "tracestate"
"""The headers of W3C Trace Context, and the members of `_meta` of the same names."""
MIN_TOOL_USE_CHARS: Final = 16  # some models number their calls from 0, and these numbers repeat
MAX_TOOL_USE_CHARS: Final = 256


def clean_instance(value: object) -> str:
    """Return the name of a thread as it is stored: trimmed, printable, at most MAX_INSTANCE_CHARS; ""
    for anything that is not such a name."""
    if not isinstance(value, str):
        return ""
    name = value.strip()
    if name.isascii() and name.isprintable():
        return name[:MAX_INSTANCE_CHARS].rstrip()
    return clean_agent_name(name[:MAX_INSTANCE_CHARS]) or ""


def name_instance(connection: Connection, value: object) -> Connection:
    """Return the connection of this thread; unchanged if the value names none."""
    caller = _name_caller(connection.caller, value)
    return _make(connection, caller, connection.tool_use, connection.trace_parent)


def name_trace(connection: Connection, parent: str, state: str | None) -> Connection:
    """Return the connection of a request with these headers of W3C Trace Context."""
    read = read_trace_parent(parent, state, is_of_message=False)
    return _make(connection, connection.caller, connection.tool_use, read)


def read_meta(connection: Connection, meta: Mapping[str, Any] | None) -> Connection:
    """Return the connection with the names in a request's `_meta`. A thread that is named there takes
    precedence over that of the connection, since many threads may share a connection."""
    if not meta:
        return connection
    caller = connection.caller
    for member in THREAD_NAMES:
        if member in meta:
            caller = _name_caller(connection.caller, meta[member])
            if caller is not connection.caller:
                break  # what is no name counts as none, so the next member may have one
    tool_use = meta.get(TOOL_USE, "")
    if tool_use and not _is_tool_use(tool_use):
        tool_use = ""
    trace_parent = connection.trace_parent
    if TRACE_PARENT in meta:
        parent, state = meta[TRACE_PARENT], meta.get(TRACE_STATE)
        trace_parent = read_trace_parent(parent, state, is_of_message=True) or trace_parent
    return _make(connection, caller, tool_use, trace_parent)


def _is_tool_use(value: object) -> bool:
    return isinstance(value, str) and MIN_TOOL_USE_CHARS <= len(value) <= MAX_TOOL_USE_CHARS


def _name_caller(caller: Caller, value: object) -> Caller:
    if not isinstance(value, str) or not value:
        return caller
    # Not all of a long value, because the cache would keep it. More spaces than that are no name.
    return _find_caller(caller, value[: 2 * MAX_INSTANCE_CHARS])


@lru_cache(1024)  # a thread calls many times, and making a caller costs more than finding one
def _find_caller(caller: Caller, value: str) -> Caller:
    name = clean_instance(value)
    return replace(caller, instance=name) if name else caller


def _make(
    connection: Connection, caller: Caller, tool_use: str, trace_parent: TraceParent | None
) -> Connection:
    """Return the connection with these names. Not by `replace`, which takes several times as long."""
    if (
        caller is connection.caller
        and tool_use == connection.tool_use
        and trace_parent is connection.trace_parent
    ):
        return connection
    return Connection(
        caller,
        connection.grant,
        connection.refused,
        connection.is_named,
        connection.address,
        tool_use,
        trace_parent,
    )
