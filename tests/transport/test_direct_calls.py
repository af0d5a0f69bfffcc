"""Calls answered without FastMCP are answered as it does: two servers get the same messages, one with
the middleware and one without, and everything they send back is compared."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from mcp.shared.memory import create_client_server_memory_streams
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from shared_context_server.auth.connection import ARGUMENT_FIELDS, Connection
from shared_context_server.auth.middleware import current_connection
from shared_context_server.server import Server, open_server
from shared_context_server.tools.catalog import TOOLS
from shared_context_server.transport.direct_calls import DirectCalls, answer_calls_directly
from tests.surfaces.conftest import API_KEY, make_settings
from tests.tool_calls import IN_SESSION, RIGHT_CALLS, SESSION

PATIENCE_S = 60
MODERN = "2026-07-28"
VERSIONS = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", MODERN]
META = "io.modelcontextprotocol/"
ENVELOPE = {
    f"{META}protocolVersion": MODERN,
    f"{META}clientInfo": {"name": "some client", "version": "1.0"},
    f"{META}clientCapabilities": {},
}
# What differs between two servers, or from one moment to the next.
_VOLATILE = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|eyJ[\w-]+\.[\w-]+\.[\w-]+|agt_[\w-]+|session_[0-9a-f]+|Wz[\w-]{20,}"
    r"|\d{4}-\d\d-\d\dT[\d:.]+Z"
    r'|(?<=_ms\\":)[\d.e-]+|(?<=_ms":)[\d.e-]+|(?<=epoch_s\\":)[\d.]+|(?<=epoch_s":)[\d.]+'
)


class CountCalls(Middleware):
    """Counts the calls of tools that FastMCP gets."""

    count = 0

    async def on_call_tool(
        self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]
    ) -> Any:
        self.count += 1
        return await call_next(context)


class Peer:
    """The client's end of a session with a server in this process."""

    def __init__(self, read: Any, write: Any, connection: Connection) -> None:
        self._read, self._write, self._connection = read, write, connection

    async def send(self, message: dict[str, Any]) -> None:
        # The server's handlers run in the context of who sends.
        reset = current_connection.set(self._connection)
        try:
            parsed = jsonrpc_message_adapter.validate_python(message)
            await self._write.send(SessionMessage(parsed))
        finally:
            current_connection.reset(reset)

    async def receive_until(self, message_id: Any) -> list[dict[str, Any]]:
        """All messages up to the answer of this id."""
        received: list[dict[str, Any]] = []
        while not received or received[-1].get("id") != message_id:
            item = await self._read.receive()
            received.append(item.message.model_dump(by_alias=True, mode="json", exclude_none=True))
        return received


@asynccontextmanager
async def open_peer(server: Server, connection: Connection) -> AsyncIterator[Peer]:
    low = server.mcp._mcp_server
    async with create_client_server_memory_streams() as ((read, write), streams):
        running = asyncio.create_task(low.run(*streams, low.create_initialization_options()))
        yield Peer(read, write, connection)
        await write.aclose()
        await running


@dataclass
class Pair:
    """Two servers with a store each, one with direct calls, and a session with each at a time."""

    servers: list[Server]
    counts: list[CountCalls]
    connections: list[dict[str, Connection]]
    sessions: list[str]
    peers: list[Peer] = field(default_factory=list)
    last_id: int = 100

    @property
    def reached(self) -> int:
        """How many calls the server with direct calls left to FastMCP."""
        return self.counts[0].count

    @asynccontextmanager
    async def connect(self, version: str | None, caller: str = "named") -> AsyncIterator[None]:
        """Sessions of this caller; with a handshake if the version has one and is not None."""
        async with AsyncExitStack() as stack:
            self.peers = [
                await stack.enter_async_context(open_peer(server, connections[caller]))
                for server, connections in zip(self.servers, self.connections, strict=True)
            ]
            if version not in (None, MODERN):
                await self.compare(initialize(version))
                for peer in self.peers:
                    await peer.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
            yield

    async def compare(self, *messages: dict[str, Any]) -> list[dict[str, Any]]:
        """Send the messages to both servers; what comes until all requests are answered must be the
        same. Returns it."""
        ids = [message["id"] for message in messages if "id" in message]
        both = []
        async with asyncio.timeout(PATIENCE_S):
            for peer, session_id in zip(self.peers, self.sessions, strict=True):
                received: list[dict[str, Any]] = []
                for message in messages:
                    await peer.send(put_session(message, session_id))
                for message_id in ids:
                    if all(other.get("id") != message_id for other in received):
                        received += await peer.receive_until(message_id)
                both.append(received)
        assert describe(both[0]) == describe(both[1]), messages
        return both[0]

    async def call(self, version: str, **params: Any) -> list[dict[str, Any]]:
        """Send one tools/call in the version's envelope, unless `_meta` is given."""
        if version == MODERN:
            params.setdefault("_meta", ENVELOPE)
        self.last_id += 1
        return await self.compare(request(self.last_id, "tools/call", params))


def request(message_id: Any, method: str, params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": message_id, "method": method, "params": params}


def initialize(version: str | None) -> dict[str, Any]:
    info = {"name": "a client", "version": "1"}
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": info}
    return request(0, "initialize", params)


def put_session(value: Any, session_id: str) -> Any:
    if isinstance(value, dict):
        return {name: put_session(part, session_id) for name, part in value.items()}
    if isinstance(value, list):
        return [put_session(part, session_id) for part in value]
    return session_id if value == SESSION else value


def describe(messages: Iterable[dict[str, Any]]) -> list[str]:
    texts = (json.dumps(m, sort_keys=True, separators=(",", ":")) for m in messages)
    return [_VOLATILE.sub("#", text) for text in texts]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    servers, counts, connections, sessions = [], [], [], []
    async with AsyncExitStack() as stack:
        for is_direct in (True, False):
            settings = make_settings(
                tmp_path / str(is_direct), rate_limit="off", failed_auth_limit="off"
            )
            server = await stack.enter_async_context(open_server(settings))
            if is_direct:
                answer_calls_directly(server.mcp, server.dispatcher)
            counting = CountCalls()
            server.mcp.add_middleware(counting)
            known = {
                caller: await server.services.identity.authenticate_headers(
                    authorization=None,
                    api_key=key,
                    agent_id=agent_id,
                    agent_type=None,
                    fields=ARGUMENT_FIELDS,
                )
                for caller, key, agent_id in (
                    ("named", API_KEY, "alice"),
                    ("unnamed", API_KEY, None),
                    ("anonymous", None, None),
                    ("refused", "wrong", None),
                )
            }
            arguments = {"purpose": "compare"}
            made = await server.dispatcher.call("create_session", arguments, known["named"])
            servers.append(server)
            counts.append(counting)
            connections.append(known)
            sessions.append(json.loads(made.json())["session_id"])
        yield Pair(servers, counts, connections, sessions)


WAITING = {tool.name for tool in TOOLS if tool.is_waiting}


def wrong_forms(tool: str) -> list[dict[str, Any]]:
    fields = next(tool_ for tool_ in TOOLS if tool_.name == tool).arguments.model_fields
    argument = [name for name in fields if name != "auth_token"] or ["auth_token"]
    is_empty_right = not any(argument.is_required() for argument in fields.values())
    return [
        *([] if is_empty_right and tool in WAITING else [{}]),  # it would wait for its default time
        {"unknown": 1},
        {"auth_token": "wrong"},
        {argument[0]: []},
        {argument[0]: math.nan},
        {argument[0]: {"deep": [math.inf]}},
        {argument[0]: "\ud83d"},
    ]


@pytest.mark.parametrize("version", VERSIONS)
async def test_calls_of_each_tool_right_and_wrong_are_answered_alike(
    pair: Pair, version: str
) -> None:
    async with pair.connect(version):
        for tool, arguments in RIGHT_CALLS:
            for form in (arguments, *wrong_forms(tool)):
                before = pair.reached
                await pair.call(version, name=tool, arguments=form)
                assert pair.reached - before == (tool in WAITING), (tool, form)


@pytest.mark.parametrize("caller", ["unnamed", "anonymous", "refused"])
@pytest.mark.parametrize("version", ["2025-06-18", MODERN])
async def test_each_caller_is_taken_for_the_same(pair: Pair, version: str, caller: str) -> None:
    async with pair.connect(version, caller):
        await pair.call(version, name="add_message", arguments={**IN_SESSION, "content": "x"})
        await pair.call(version, name="get_messages", arguments=IN_SESSION)
        await pair.call(version, name="list_agents", arguments={})
        await pair.call(version, name="authenticate_agent", arguments={"agent_id": "eve"})
        assert pair.reached == 0


ODD_PARAMS: list[dict[str, Any]] = [
    {},
    {"name": None},
    {"name": 5},
    {"arguments": {}},
    {"name": "nope"},
    {"name": "nope", "arguments": {"a": 1}},
    {"name": "list_sessions"},
    {"name": "list_sessions", "arguments": None},
    {"name": "list_sessions", "arguments": []},
    {"name": "list_sessions", "arguments": "x"},
    {"name": "list_sessions", "arguments": {1: 2}},
    {"name": "list_sessions", "arguments": {"limit": (1, 2)}},
    {"name": "list_sessions", "arguments": {}, "extra": 1},
    {"name": "list_sessions", "arguments": {}, "requestState": "x"},
    {"name": "list_sessions", "arguments": {}, "inputResponses": {}},
    {"name": "list_sessions", "arguments": {}, "task": {"ttl": 1}},
]
ODD_META: list[Any] = [
    None,
    [],
    "x",
    *(
        {name: value}
        for name, values in {
            f"{META}protocolVersion": ["2025-06-18", MODERN, 5, None],
            f"{META}clientInfo": [None, {}, {"name": "a"}, {"name": 5, "version": "1"}, "x"],
            f"{META}clientCapabilities": [None, {"roots": {}}, {"unknown": 1}, [], {"sampling": 5}],
            f"{META}logLevel": ["debug", "loud", 5],
            f"{META}other": [1, {}],
            "progressToken": [1, "p", None, 1.5, True, {}],
            "claudecode/toolUseId": ["toolu_1"],
            "threadId": ["t-1"],
            "fastmcp": [{"version": "1"}, {}],
            "traceparent": ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            1: [2],
            "x": ["y" * 3000],
        }.items()
        for value in values
    ),
]


@pytest.mark.parametrize("version", ["2024-11-05", "2025-06-18", MODERN])
async def test_odd_params_are_answered_alike(pair: Pair, version: str) -> None:
    async with pair.connect(version):
        for params in ODD_PARAMS:
            await pair.call(version, **params)
        for odd in ODD_META:
            is_added = version == MODERN and isinstance(odd, dict)
            meta = {**ENVELOPE, **odd} if is_added else odd
            for tool, arguments in (("list_sessions", {}), ("wait_for_messages", IN_SESSION)):
                more = {"timeout_seconds": 0} if arguments else {}
                await pair.call(version, name=tool, arguments={**arguments, **more}, _meta=meta)


@pytest.mark.parametrize("version", ["2025-06-18", MODERN])
async def test_a_request_of_the_other_era_is_refused_alike(pair: Pair, version: str) -> None:
    async with pair.connect(version):
        await pair.call(version, name="list_sessions", arguments={})
        other = {"_meta": {} if version == MODERN else ENVELOPE}
        [answer] = await pair.call(version, name="list_sessions", arguments={}, **other)
        assert "error" in answer
        assert pair.reached == 0


async def test_a_call_before_initialize_is_refused_alike(pair: Pair) -> None:
    async with pair.connect(None):
        call = request(1, "tools/call", {"name": "list_sessions", "arguments": {}})
        [answer] = await pair.compare(call)
        assert "error" in answer
        await pair.compare(initialize("2025-06-18"))
        [answer] = await pair.compare(call)
        assert answer["result"]["isError"] is False
        assert pair.reached == 0


@pytest.mark.parametrize("version", ["2025-06-18", MODERN])
async def test_cancelled_calls_are_left_unanswered_alike(pair: Pair, version: str) -> None:
    meta = {"_meta": ENVELOPE} if version == MODERN else {}
    wait = {"name": "wait_for_messages", "arguments": {**IN_SESSION, "timeout_seconds": 100}}
    lists = request(2, "tools/call", {"name": "list_sessions", "arguments": {}, **meta})
    async with pair.connect(version):
        await pair.compare(request(5, "tools/list", meta))
        for peer, session_id in zip(pair.peers, pair.sessions, strict=True):
            await peer.send(put_session(request("w", "tools/call", {**wait, **meta}), session_id))
        for cancelled in ("w", 2, "none", None):
            params = {"requestId": cancelled, "reason": "over"}
            note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
            await pair.compare(note, lists)


@pytest.mark.parametrize("version", ["2025-06-18", MODERN])
async def test_a_notification_calls_no_tool(pair: Pair, version: str) -> None:
    meta = {"_meta": ENVELOPE} if version == MODERN else {}
    lists = request(2, "tools/call", {"name": "get_messages", "arguments": IN_SESSION, **meta})
    call = {"name": "add_message", "arguments": {**IN_SESSION, "content": "x"}, **meta}
    async with pair.connect(version):
        note = {"jsonrpc": "2.0", "method": "tools/call", "params": call}
        await pair.compare(request(5, "tools/list", meta))
        [answer] = await pair.compare(note, lists)
        assert answer["result"]["structuredContent"]["count"] == 0


async def test_arguments_that_are_not_strict_json_are_refused_by_name(pair: Pair) -> None:
    async with pair.connect("2025-06-18"):
        arguments = {**IN_SESSION, "content": "x", "metadata": {"a": math.nan}}
        [answer] = await pair.call("2025-06-18", name="add_message", arguments=arguments)
        assert answer["result"]["structuredContent"]["details"]["field"] == "metadata"
        assert pair.reached == 0


async def test_sessions_that_are_bound_to_tokens_are_left_to_fastmcp(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, mcp_sessions="stateful", mcp_session_identity=True)
    async with open_server(settings) as server:
        answer_calls_directly(server.mcp, server.dispatcher)
        known = server.mcp._mcp_server.middleware
        assert not any(isinstance(middleware, DirectCalls) for middleware in known)
