"""Finds ordinary tools/call requests, runs them, and writes their results without the SDK.

The fast paths over HTTP and stdio share it. A call that is not certainly ordinary is left to the SDK.
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
from shared_context_server.tools.mcp import UNREAD_META

MAX_REMEMBERED: Final = 256  # answers, and envelopes of requests
MAX_KEY_BYTES: Final = 2048  # of a cache key

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
    """A call of an existing tool that does not wait and needs nothing of the SDK."""

    tool: str
    arguments: JsonObject
    meta: JsonObject


def find_ordinary_call(dispatcher: Dispatcher, params: Any) -> OrdinaryCall | None:
    """The call in the params of a tools/call, if it is ordinary. Whether the SDK accepts its envelope is
    not checked here."""
    if not isinstance(params, dict) or not _CALL_MEMBERS.issuperset(params):
        return None
    name, arguments = params.get("name"), params.get("arguments", {})
    tool = dispatcher.tools.get(name) if isinstance(name, str) else None
    if tool is None or tool.is_waiting or not isinstance(arguments, dict):
        return None
    meta = params.get("_meta", {})
    if not isinstance(meta, dict) or not has_only_known_meta(meta):
        return None
    return OrdinaryCall(tool.name, arguments, meta)


async def run_call(
    dispatcher: Dispatcher, call: OrdinaryCall, connection: Connection, *, is_strict: bool
) -> Outcome:
    """Call the tool. `is_strict`: the arguments are known to be strict JSON. Otherwise they are checked,
    and the error names the first wrong argument."""
    if not is_strict:
        try:
            require_strict_json(call.arguments)
        except InvalidArgument as exc:
            return failure(exc)
    return await dispatcher.call(call.tool, call.arguments, connection)


def has_only_known_meta(meta: JsonObject) -> bool:
    """Whether _meta requests nothing that needs the SDK: no version of a tool, and no unknown feature of
    the protocol. A request for progress or log messages is fine, because ordinary calls send none."""
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
    """The part of _meta that the SDK checks."""
    if not meta:
        return meta
    return {name: meta[name] for name in sorted(meta.keys() & _MODERN_META)}


def is_valid_call(version: str, tool: str, envelope: JsonObject) -> bool:
    """Whether the SDK accepts a call of this tool with this envelope, for any arguments."""
    params = {"name": tool, "arguments": {}, "_meta": envelope}
    try:
        validate_client_request("tools/call", version, params)
    except (ValidationError, KeyError, ValueError):
        return False
    return True


class KnownEnvelopes:
    """Caches which envelopes the SDK accepts."""

    def __init__(self) -> None:
        self._taken: LRUCache[tuple[str | bytes | None, ...], bool] = LRUCache(MAX_REMEMBERED)

    def is_taken(
        self, parts: tuple[str | bytes | None, ...], envelope: JsonObject, ask: Callable[[], bool]
    ) -> bool:
        """The cached result of `ask`, which must depend only on the key. False if the key is too long."""
        key = (*parts, to_json(envelope) if envelope else None)
        is_taken = self._taken.get(key)
        if is_taken is None:
            if sum(len(part or "") for part in key) > MAX_KEY_BYTES:
                return False
            is_taken = self._taken[key] = ask()
        return is_taken


class CallResults:
    """Writes results of tools/call as the SDK does. `server_info` is the server information that the SDK
    adds to each result in the stateless versions of MCP."""

    def __init__(self, server_info: JsonObject) -> None:
        self._modern_meta: JsonObject = {SERVER_INFO_META_KEY: server_info}
        self._modern_end = b',"resultType":"complete","_meta":%b}' % to_json(self._modern_meta)

    def write(self, outcome: Outcome, *, is_handshake_era: bool) -> bytes:
        """The result as JSON, like tools.mcp.tool_result, with the members of the protocol version."""
        body = outcome.json()
        if outcome.unread is not None:
            return self._write_with_unread(outcome, body, is_handshake_era=is_handshake_era)
        return b'{"content":[{"type":"text","text":%b}],"structuredContent":%b,"isError":%b%b' % (
            to_json(body.decode()),
            body,
            b"true" if outcome.is_error else b"false",
            b"}" if is_handshake_era else self._modern_end,
        )

    def _write_with_unread(self, outcome: Outcome, body: bytes, *, is_handshake_era: bool) -> bytes:
        assert outcome.unread is not None
        meta = {UNREAD_META: outcome.unread.meta()}
        texts = ({"type": "text", "text": text} for text in (body.decode(), outcome.unread.text()))
        return b'{"content":%b,"structuredContent":%b,"isError":%b%b}' % (
            to_json(list(texts)),
            body,
            b"true" if outcome.is_error else b"false",
            b',"_meta":%b' % to_json(meta)
            if is_handshake_era
            else b',"resultType":"complete","_meta":%b' % to_json(meta | self._modern_meta),
        )
