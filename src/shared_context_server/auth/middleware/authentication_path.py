"""What a client with a bad credential must still be able to do, to get a good one."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from shared_context_server.json_size import has_too_many_values

AUTHENTICATE = "authenticate_agent"
TOOL_PATH = "/mcp/tool/"
BATCH_PATH = "/mcp/batch"


def leads_to_authentication(method: str, path: str, body: bytes) -> bool:
    """Whether the request calls authenticate_agent over plain HTTP, and nothing else.

    Not over MCP: there a client that is let in with a bad credential looks connected, and fails or
    hangs at its first call. It can leave the credential out.
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
