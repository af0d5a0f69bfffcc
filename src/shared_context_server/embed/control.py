"""The control protocol of Claude Code: MCP messages inside lines of JSON.

A host that starts the Claude Code command line gets `control_request` lines for the servers in its own
process, and writes a `control_response` line for each.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any, Self

from pydantic_core import PydanticSerializationError, to_json

from shared_context_server.embed.adapter import MAX_MESSAGE_BYTES, McpServerAdapter
from shared_context_server.jsonrpc import (
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    JsonObject,
    Refused,
    error_answer,
    parse_json,
    read_id,
    replace_surrogates,
)

SUBTYPES = frozenset({"mcp_message", "sdk_mcp_request"})
ENVELOPE_BYTES = 64 * 1024  # of a line, in addition to the message

# The response to a control request with a notification, which itself has no response.
_ACKNOWLEDGED: JsonObject = {"jsonrpc": "2.0", "result": {}}


class ControlRouter:
    """Answers the control requests for servers of this process, by name.

    `servers`: name → FastMCP object, low-level server, or an `mcp_servers` entry of type "sdk". The
    first message for a server starts it, also again after it has failed.
    """

    def __init__(self, servers: Mapping[str, object]) -> None:
        self._adapters = {name: McpServerAdapter(server) for name, server in servers.items()}
        self._running: dict[str, asyncio.Task[JsonObject | None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all sessions. Running calls get an error."""
        await asyncio.gather(*(adapter.close() for adapter in self._adapters.values()))

    async def handle(self, line: bytes | str | JsonObject) -> str | None:
        """Return the response line with its newline; None if there is no response.

        Lines of other types, and control requests of other subtypes, are for the host: None. A
        `control_cancel_request` cancels the named request, which then gets no response. The content
        of a line never makes this raise. It may run for many lines at once.
        """
        try:
            envelope = self._parse(line)
        except Refused as refused:
            return _respond(None, refused.answer)
        if envelope.get("type") == "control_cancel_request":
            self._cancel(envelope.get("request_id"))
            return None
        if envelope.get("type") != "control_request":
            return None
        request, request_id = envelope.get("request"), envelope.get("request_id")
        if not isinstance(request, dict):
            return _respond(request_id, error_answer(None, INVALID_REQUEST, "request is missing"))
        subtype = request.get("subtype")
        if not isinstance(subtype, str) or subtype not in SUBTYPES:
            return None
        return await self._answer(request_id, request)

    def _parse(self, line: bytes | str | JsonObject) -> JsonObject:
        envelope = line
        if isinstance(line, bytes | bytearray | str):
            envelope = parse_json(line, MAX_MESSAGE_BYTES + ENVELOPE_BYTES)
        if not isinstance(envelope, dict):
            raise Refused(INVALID_REQUEST, "A control line must be a JSON object")
        return envelope

    async def _answer(self, request_id: Any, request: JsonObject) -> str | None:
        try:
            adapter, message = self._find(request)
        except Refused as refused:
            return _respond(request_id, refused.answer)
        asking = asyncio.create_task(_ask(adapter, message))
        if isinstance(request_id, str):
            self._running[request_id] = asking
        try:
            await asyncio.wait({asking})
        finally:
            asking.cancel()
            if isinstance(request_id, str) and self._running.get(request_id) is asking:
                del self._running[request_id]
        if asking.cancelled():
            return None
        answer = asking.result()
        return _respond(request_id, _ACKNOWLEDGED if answer is None else answer)

    def _find(self, request: JsonObject) -> tuple[McpServerAdapter, JsonObject | str]:
        name = request.get("server_name", request.get("serverName"))
        message = request.get("message")
        if not isinstance(name, str) or not isinstance(message, dict | str):
            text = "server_name and message are required"
            raise Refused(INVALID_REQUEST, text, read_id(message))
        adapter = self._adapters.get(name)
        if adapter is None:
            text = f"Server '{name[:100]}' not found"
            raise Refused(METHOD_NOT_FOUND, text, read_id(message))
        return adapter, message

    def _cancel(self, request_id: Any) -> None:
        asking = self._running.get(request_id) if isinstance(request_id, str) else None
        if asking is not None:
            asking.cancel()


async def _ask(adapter: McpServerAdapter, message: JsonObject | str) -> JsonObject | None:
    await adapter.connect()
    return await adapter.handle_message(message)


def _respond(request_id: Any, answer: JsonObject) -> str:
    response = {
        "subtype": "success",
        "request_id": request_id,
        "response": {"mcp_response": answer},
    }
    line = {"type": "control_response", "response": response}
    try:
        return to_json(line, inf_nan_mode="null").decode() + "\n"
    except PydanticSerializationError:  # a tool may answer with lone surrogates
        return replace_surrogates(json.dumps(line, ensure_ascii=False, default=str)) + "\n"


def servers_for_cli(config: Mapping[str, Any] | str | os.PathLike[str]) -> str:
    """The value of `--mcp-config` for these `mcp_servers`: JSON. The path of a file stays as it is.

    Servers of this process are named without their object. Raises TypeError for an entry that is not
    a configuration.
    """
    if not isinstance(config, Mapping):
        return os.fspath(config)
    servers = {name: _entry_for_cli(name, entry) for name, entry in config.items()}
    return json.dumps({"mcpServers": servers})


def _entry_for_cli(name: str, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise TypeError(f"mcp_servers[{name!r}] is {type(entry).__name__}, not a configuration")
    if entry.get("type") == "sdk":
        return {key: value for key, value in entry.items() if key != "instance"}
    return dict(entry)
