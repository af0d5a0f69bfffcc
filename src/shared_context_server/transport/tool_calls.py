"""What is common to the ways that answer tools/call without the SDK: which calls are ordinary, and the
result they get.

Whatever is not known for certain to be ordinary is left to the SDK, which stays the judge of what MCP is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cachetools import LRUCache
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    LOG_LEVEL_META_KEY,
    PROTOCOL_VERSION_META_KEY,
    SERVER_INFO_META_KEY,
)
from mcp_types.methods import validate_client_request
from pydantic import ValidationError
from pydantic_core import to_json

from shared_context_server.auth.connection import Connection
from shared_context_server.errors import InvalidArgument
from shared_context_server.jsonrpc import JsonObject
from shared_context_server.tools.dispatch import Dispatcher, Outcome, failure, require_strict_json

MAX_REMEMBERED: Final = 256  # answers, and envelopes of requests
MAX_KEY_BYTES: Final = 2048  # of the parameters that something is remembered for

_MODERN_PREFIX = "io.modelcontextprotocol/"
_MODERN_META = frozenset(
    {
        PROTOCOL_VERSION_META_KEY,
        CLIENT_INFO_META_KEY,
        CLIENT_CAPABILITIES_META_KEY,
        LOG_LEVEL_META_KEY,
    }
)
_CALL_MEMBERS = frozenset({"name", "arguments", "_meta"})


@dataclass(slots=True)
class OrdinaryCall:
    """A call of a tool that is served and does not wait, with nothing in it that needs the SDK."""

    tool: str
    arguments: JsonObject
    meta: JsonObject


def find_ordinary_call(dispatcher: Dispatcher, params: Any) -> OrdinaryCall | None:
    """The call in the params of a tools/call, if it is ordinary. Whether the SDK takes its envelope is
    still to be asked."""
    if not isinstance(params, dict) or not _CALL_MEMBERS.issuperset(params):
        return None
    name, arguments = params.get("name"), params.get("arguments", {})
    tool = dispatcher.tools.get(name) if isinstance(name, str) else None
    if tool is None or tool.is_waiting or not isinstance(arguments, dict):
        return None
    meta = params.get("_meta", {})
    if not isinstance(meta, dict) or not asks_for_nothing(meta):
        return None
    return OrdinaryCall(tool.name, arguments, meta)


async def run_call(
    dispatcher: Dispatcher, call: OrdinaryCall, connection: Connection, *, is_strict: bool
) -> Outcome:
    """Call the tool. `is_strict`: the arguments are known to be strict JSON; of others the first that
    is not is refused by name."""
    if not is_strict:
        try:
            require_strict_json(call.arguments)
        except InvalidArgument as exc:
            return failure(exc)
    return await dispatcher.call(call.tool, call.arguments, connection)


def asks_for_nothing(meta: JsonObject) -> bool:
    """Whether _meta only says things, and asks neither for a version of a tool nor for anything of the
    protocol's own that is not known here. Progress and log messages may be asked for: what is answered
    here has none."""
    for name, value in meta.items():
        if name.startswith(_MODERN_PREFIX):
            if name not in _MODERN_META:
                return False
        elif name == "progressToken":
            if not isinstance(value, str | int) or isinstance(value, bool):
                return False
        elif "progress" in name.lower() or "fastmcp" in name.lower():
            return False
    return True


def select_envelope(meta: JsonObject) -> JsonObject:
    """What of _meta the SDK looks at."""
    if not meta:
        return meta
    return {name: meta[name] for name in sorted(meta.keys() & _MODERN_META)}


def is_valid_call(version: str, tool: str, envelope: JsonObject) -> bool:
    """Whether the SDK takes a call of this tool in this envelope, whatever its arguments."""
    params = {"name": tool, "arguments": {}, "_meta": envelope}
    try:
        validate_client_request("tools/call", version, params)
    except (ValidationError, KeyError, ValueError):
        return False
    return True


class KnownEnvelopes:
    """Remembers which envelopes the SDK takes, so that it is asked once for each."""

    def __init__(self) -> None:
        self._taken: LRUCache[tuple[str | bytes | None, ...], bool] = LRUCache(MAX_REMEMBERED)

    def is_taken(
        self, parts: tuple[str | bytes | None, ...], envelope: JsonObject, ask: Callable[[], bool]
    ) -> bool:
        """The answer of `ask`, which must depend on these only; False for what is too long to keep."""
        key = (*parts, to_json(envelope) if envelope else None)
        is_taken = self._taken.get(key)
        if is_taken is None:
            if sum(len(part or "") for part in key) > MAX_KEY_BYTES:
                return False
            is_taken = self._taken[key] = ask()
        return is_taken


class CallResults:
    """Writes results of tools/call as the SDK does. `server_info` is what it says of the server in each
    result of the stateless era."""

    def __init__(self, server_info: JsonObject) -> None:
        self._modern_end = b',"resultType":"complete","_meta":%b}' % to_json(
            {SERVER_INFO_META_KEY: server_info}
        )

    def write(self, outcome: Outcome, *, is_handshake_era: bool) -> bytes:
        """The result as JSON: as tools.mcp.tool_result, with what the protocol's era adds to it."""
        body = outcome.json()
        return b'{"content":[{"type":"text","text":%b}],"structuredContent":%b,"isError":%b%b' % (
            to_json(body.decode()),
            body,
            b"true" if outcome.is_error else b"false",
            b"}" if is_handshake_era else self._modern_end,
        )
