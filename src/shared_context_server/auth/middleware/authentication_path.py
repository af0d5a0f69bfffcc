"""What a client with a bad credential must still be able to do, to get a good one."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

AUTHENTICATE = "authenticate_agent"
TOOL_PATH = "/mcp/tool/"
BATCH_PATH = "/mcp/batch"
MCP_PATH = "/mcp"

_MCP_METHODS = frozenset({"initialize", "ping", "server/discover", "tools/list"})


def leads_to_authentication(method: str, path: str, body: bytes) -> bool:
    """Whether the request calls authenticate_agent, or is what MCP clients send on the way there,
    and nothing else. The tools refuse the credential all the same: this only lets them be asked."""
    if method != "POST":
        return False
    if path == TOOL_PATH + AUTHENTICATE:
        return True
    if path not in (BATCH_PATH, MCP_PATH):
        return False
    try:
        content = from_json(body)
    except ValueError:
        return False
    if path == BATCH_PATH:
        return _all_authenticate(content)
    messages = content if isinstance(content, list) else [content]
    return bool(messages) and all(map(_is_on_the_way, messages))


def _all_authenticate(content: Any) -> bool:
    calls = content.get("calls") if isinstance(content, dict) else None
    return (
        isinstance(calls, list)
        and bool(calls)
        and all(isinstance(call, dict) and call.get("tool") == AUTHENTICATE for call in calls)
    )


def _is_on_the_way(message: Any) -> bool:
    if not isinstance(message, dict):
        return False
    method, params = message.get("method"), message.get("params")
    if not isinstance(method, str):
        return False
    if method == "tools/call":
        return isinstance(params, dict) and params.get("name") == AUTHENTICATE
    return method in _MCP_METHODS or method.startswith("notifications/")
