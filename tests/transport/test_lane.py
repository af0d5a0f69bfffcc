"""The direct lane answers as the SDK does: the same requests are sent through both and compared."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Send

from shared_context_server.server import make_app, make_mcp, open_server
from shared_context_server.settings import Settings
from shared_context_server.transport.lane import DirectLane
from shared_context_server.transport.request import McpRequest

KEY, SECRET = "key-" + "k" * 40, "secret-" + "s" * 40
URL = "http://127.0.0.1:23456"
BOTH = "application/json, text/event-stream"
MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"
COMPARED_HEADERS = ("content-type", "allow", "retry-after", "www-authenticate")
_VOLATILE = re.compile(
    r'(\\?"(?:message_id|seq|version|next_after_seq|last_seq|count|total_count)\\?":)\d+'
    r"|\d{4}-\d\d-\d\dT[\d:.]+Z"
)


class CountingLane(DirectLane):
    """Counts what it answers itself, so that a lane that answers nothing is not taken for equal."""

    answered = 0

    async def answer(self, request: McpRequest, send: Send) -> bool:
        is_answered = await super().answer(request, send)
        self.answered += is_answered
        return is_answered


@dataclass
class Request:
    """One POST on /mcp."""

    body: bytes
    headers: Sequence[tuple[str, str]] = ()


@dataclass
class Pair:
    """Two applications of one server, with the lane and without."""

    direct: httpx.AsyncClient
    through_sdk: httpx.AsyncClient
    lane: CountingLane
    session_id: str = ""
    differences: list[str] = field(default_factory=list)

    async def compare(self, request: Request) -> None:
        body = request.body.replace(b"<session>", self.session_id.encode())
        answers = [
            describe(await client.post("/mcp", content=body, headers=list(request.headers)))
            for client in (self.direct, self.through_sdk)
        ]
        if answers[0] != answers[1]:
            shown = [f"{request.headers}", body.decode(errors="replace"), *map(str, answers)]
            self.differences.append("\n  ".join(shown))


def describe(response: httpx.Response) -> tuple[Any, ...]:
    """What has to be equal: status, headers that matter, and the message."""
    text = response.text
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        data = [line[5:].strip() for line in re.split(r"[\r\n]+", text) if line.startswith("data:")]
        messages = [json.loads(line) for line in data if line]
    else:
        messages = [json.loads(text)] if text else []
    kept = {name: response.headers.get(name) for name in COMPARED_HEADERS}
    has_session = "mcp-session-id" in response.headers
    plain = _VOLATILE.sub(r"\1#", json.dumps(messages, sort_keys=True, separators=(",", ":")))
    return int(response.status_code), kept, has_session, plain


@asynccontextmanager
async def open_pair(directory: Path) -> AsyncIterator[Pair]:
    settings_ = Settings(
        data_dir=directory,
        api_key=KEY,
        jwt_secret_key=SECRET,
        rate_limit="off",
        failed_auth_limit="off",
        http_port=23456,
    )
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_server(settings_))
        clients = []
        for has_lane in (True, False):
            mcp = make_mcp(server.dispatcher)
            lane = CountingLane(server.dispatcher, mcp._mcp_server.server_info_stamp)
            app = await make_app(
                stack, mcp, server.dispatcher, server.metrics, lane if has_lane else None
            )
            transport = httpx.ASGITransport(app)
            clients.append(
                await stack.enter_async_context(
                    httpx.AsyncClient(transport=transport, base_url=URL)
                )
            )
            if has_lane:
                direct_lane = lane
        pair = Pair(*clients, direct_lane)
        caller = {"X-API-Key": KEY, "X-Agent-ID": "alice"}
        made = await clients[1].post(
            "/mcp/tool/create_session", json={"purpose": "compare"}, headers=caller
        )
        pair.session_id = made.json()["session_id"]
        yield pair
        assert not pair.differences, "\n\n".join(pair.differences)


# What clients send

ARGUMENTS: dict[str, list[Any]] = {
    "get_messages": [{"session_id": "<session>"}, {"session_id": "none"}, {"session_id": 5}],
    "add_message": [
        {"session_id": "<session>", "content": "häl\u2028lo \U0001f600 </script>"},
        {"session_id": "<session>", "content": "x", "metadata": {"a": [None, 1.5, {"b": True}]}},
        {"session_id": "<session>", "content": ""},
        {"session_id": "<session>", "content": "x", "unknown": 1},
    ],
    "list_sessions": [{}, {"limit": 1}, {"limit": "1"}, {"limit": None}, {"auth_token": "wrong"}],
    "get_memory": [{"key": "missing"}, {"key": ""}, {}],
    "set_memory": [{"key": "k", "value": {"deep": [[[]]]}}, {"key": "k", "value": None}],
    "wait_for_messages": [{"session_id": "<session>", "timeout_seconds": 0}],
    "authenticate_agent": [{"agent_id": "eve", "api_key": "wrong"}, {"agent_id": "\0"}],
    "get_audit_log": [{}],
    "nope": [{}, {"a": 1}],
}
ENVELOPE = {
    f"{META}protocolVersion": MODERN,
    f"{META}clientInfo": {"name": "some client", "version": "1.0"},
    f"{META}clientCapabilities": {},
}
OLD_VERSIONS = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]
CREDENTIALS = [
    [("x-api-key", KEY), ("x-agent-id", "alice")],
    [("x-api-key", KEY)],
    [],
    [("x-api-key", "wrong")],
    [("authorization", "Bearer wrong")],
]
METHODS = [
    *["tools/call"] * 8,
    *("tools/list", "initialize", "ping", "server/discover", "prompts/list", "resources/list"),
    *("notifications/initialized", "notifications/cancelled", "logging/setLevel", "what/ever"),
]


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A request that is right in most of its parts, and odd in a few."""

    def mostly(usual: Any, *odd: Any) -> Any:
        return draw(st.sampled_from([usual] * 6 + list(odd)))

    version = draw(st.sampled_from([MODERN, MODERN, *OLD_VERSIONS, None, "1999-01-01", ""]))
    is_modern = version not in (None, *OLD_VERSIONS)
    method = draw(st.sampled_from(METHODS))
    params: Any = {}
    name = None
    if method == "tools/call":
        name = draw(st.sampled_from(list(ARGUMENTS)))
        arguments = draw(st.sampled_from(ARGUMENTS[name]))
        params = {"name": mostly(name, 5, None), "arguments": mostly(arguments, [], None, "x")}
        if mostly(False, True):
            del params[draw(st.sampled_from(["name", "arguments"]))]
    elif method == "initialize":
        info = mostly({"name": "a client", "version": "1"}, {"name": "a"}, None, {"name": 5})
        params = {
            "protocolVersion": mostly("2025-06-18", "2024-11-05", "1999", MODERN, 5),
            "capabilities": mostly({}, {"roots": {}}, None),
            "clientInfo": info,
        }
    elif method == "logging/setLevel":
        params = {"level": mostly("info", "loud")}
    meta = draw(metas(is_modern=is_modern))
    if meta is not MISSING:
        params["_meta"] = meta
    if mostly(False, True):
        params["extra"] = draw(st.sampled_from([1, {"a": 1}]))
    params = mostly(params, [], None, MISSING, "x")
    message: dict[str, Any] = {
        "jsonrpc": mostly("2.0", "1.0", MISSING, 2),
        "id": mostly(1, 0, -1, "a", "", "é" * 300, 2**53, 2**70, None, True, 1.5, [], MISSING),
        "method": mostly(method, 5, MISSING),
        "params": params,
        "more": mostly(MISSING, 1, None),
    }
    message = {key: value for key, value in message.items() if value is not MISSING}
    body = json.dumps(message, ensure_ascii=draw(st.booleans())).encode()
    body = mostly(body, b"[%b]" % body, b"", b"{", body.replace(b"5", b"NaN", 1), b"\xff" + body)
    body = mostly(body, body.replace(b"1", b"1e999", 1), body.replace(b'"x"', b'"\\ud83d"', 1))
    headers = [
        ("accept", mostly(BOTH, "application/json", "text/event-stream", "*/*", "text/html", "")),
        ("content-type", mostly("application/json", "application/json; charset=utf-8", "a/b")),
        *draw(st.sampled_from([CREDENTIALS[0], *CREDENTIALS])),
    ]
    if version is not None:
        headers.append(("mcp-protocol-version", version))
    if is_modern or mostly(False, True):
        said = mostly(method, "ping", MISSING)
        headers += [] if said is MISSING else [("mcp-method", said)]
        called = mostly(name, "get_time", MISSING)
        headers += [] if called in (MISSING, None) else [("mcp-name", called)]
    if mostly(False, True):
        headers.append(draw(st.sampled_from(headers)))
    return Request(body, headers)


MISSING: Any = object()


@st.composite
def metas(draw: st.DrawFn, *, is_modern: bool) -> Any:
    usual: Any = ENVELOPE if is_modern else MISSING
    meta = draw(st.sampled_from([usual] * 4 + [MISSING, {}, None, [], "x", ENVELOPE]))
    if not isinstance(meta, dict) or draw(st.integers(0, 2)):
        return meta
    odd = {
        f"{META}protocolVersion": ["2025-06-18", 5, None],
        f"{META}clientInfo": [None, {}, {"name": "a"}, {"name": 5, "version": "1"}, "x"],
        f"{META}clientCapabilities": [None, {"roots": {}}, {"unknown": 1}, [], {"sampling": 5}],
        f"{META}logLevel": ["debug", "loud", 5],
        f"{META}other": [1, {}],
        "progressToken": [1, "p", None, 1.5, {}],
        "claudecode/toolUseId": ["toolu_1"],
        "threadId": ["t-1"],
        "fastmcp": [{"version": "1"}, {}],
        "traceparent": ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
    }
    name = draw(st.sampled_from(list(odd)))
    return {**meta, name: draw(st.sampled_from(odd[name]))}


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(requests(), min_size=30, max_size=60))
@pytest.mark.timeout(600)
def test_generated_requests_are_answered_alike(batch: list[Request]) -> None:
    async def run() -> None:
        with TemporaryDirectory() as directory:
            async with open_pair(Path(directory)) as pair:
                for request in batch:
                    await pair.compare(request)

    asyncio.run(run())


def usual(method: str, params: dict[str, Any], version: str | None, **more: str) -> Request:
    headers = [("accept", more.pop("accept", BOTH)), ("content-type", "application/json")]
    if version == MODERN:
        params = {**params, "_meta": {**ENVELOPE, **more}}
        headers += [("mcp-method", method)]
        headers += [("mcp-name", params["name"])] if "name" in params else []
    if version is not None:
        headers.append(("mcp-protocol-version", version))
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    return Request(json.dumps(body).encode(), [*headers, *CREDENTIALS[0]])


async def test_usual_requests_take_the_lane_and_are_answered_alike(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as pair:
        count = 0
        for version in (MODERN, *OLD_VERSIONS, None):
            for name, choices in ARGUMENTS.items():
                for arguments in choices:
                    for accept in (BOTH, "application/json", "text/event-stream"):
                        call = {"name": name, "arguments": arguments}
                        await pair.compare(usual("tools/call", call, version, accept=accept))
                        count += name not in ("nope", "wait_for_messages")
        assert pair.lane.answered == count
        for version in (MODERN, "2025-06-18"):
            listing = usual("tools/list", {}, version)
            before = pair.lane.answered
            for _ in range(3):
                await pair.compare(listing)
            assert pair.lane.answered == before + 2  # the first time the SDK was asked


async def test_what_names_a_thread_or_a_tool_use_takes_the_lane(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as pair:
        call = {"name": "list_sessions", "arguments": {}}
        for name in ("claudecode/toolUseId", "threadId"):
            await pair.compare(usual("tools/call", call, MODERN, **{name: "some text"}))
        assert pair.lane.answered == 2


@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_what_the_python_sdk_sends_takes_the_lane(tmp_path: Path, mode: str) -> None:
    """Its own requests, recorded on their way and sent once more to both."""
    recorded: list[Request] = []
    async with open_pair(tmp_path) as pair:

        def make_client(**options: Any) -> httpx.AsyncClient:
            async def record(request: httpx.Request) -> None:
                if request.method == "POST":
                    raw = [(k.decode(), v.decode()) for k, v in request.headers.raw]
                    recorded.append(Request(request.content, raw))

            options["transport"] = pair.direct._transport
            return httpx.AsyncClient(**options | {"event_hooks": {"request": [record]}})

        transport = StreamableHttpTransport(
            f"{URL}/mcp",
            headers={"X-API-Key": KEY, "X-Agent-ID": "bob"},
            httpx_client_factory=make_client,
        )
        async with Client(transport, mode=mode) as client:
            await client.list_tools()
            await client.call_tool("list_sessions", {})
            await client.call_tool("nope", {}, raise_on_error=False)
        before = pair.lane.answered
        assert before >= 1
        for request in recorded:
            await pair.compare(request)
        assert pair.lane.answered > before
