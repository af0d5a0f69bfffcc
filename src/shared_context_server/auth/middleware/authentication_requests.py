"""Finds the requests that a client with an invalid credential may still make: to get a valid one."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from shared_context_server.json_size import has_too_many_values

AUTHENTICATE = "authenticate_agent"
TOOL_PATH = "/mcp/tool/"
BATCH_PATH = "/mcp/batch"


def is_authentication(method: str, path: str, body: bytes) -> bool:
    """Whether the request calls only authenticate_agent, over plain HTTP.

    MCP is excluded: a client that gets in with an invalid credential looks connected, and then fails
    or hangs at its first call. It can send no credential instead.
    """
    if method != "POST":
        return False
    if path == TOOL_PATH + AUTHENTICATE:
        return True
    if path != BATCH_PATH or has_too_many_values(body):
        return False
    try:
        return _all_authenticate(from_json(body))
    except ValueError:
        return False


def _all_authenticate(content: Any) -> bool:
    calls = content.get("calls") if isinstance(content, dict) else None
    return (
        isinstance(calls, list)
        and bool(calls)
        and all(isinstance(call, dict) and call.get("tool") == AUTHENTICATE for call in calls)
    )
