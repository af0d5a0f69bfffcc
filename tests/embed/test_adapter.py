"""McpServerAdapter: any server object, any input, many at once, and an end that hangs nobody."""

from __future__ import annotations

import asyncio
import contextvars
import json
from typing import Any

import anyio
import pytest
from fastmcp import Context, FastMCP
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from mcp_types import CallToolResult, ListToolsResult, TextContent, Tool

from shared_context_server.embed import McpServerAdapter, tool_server
from shared_context_server.embed.adapter import CLOSE_GRACE_S
from shared_context_server.jsonrpc import (
    CONNECTION_CLOSED,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    OVERLOADED,
    PARSE_ERROR,
    REQUEST_CANCELLED,
)
from tests.embed.conftest import MODERN, PATIENCE_S, initialize, request, tool_call
from tests.until import until

whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="nobody's")


class Gate:
    """A tool that is under way until the test lets it go."""

    def __init__(self) -> None:
        self.entered = self.cancelled = 0
        self.opened = asyncio.Event()

    async def stand(self) -> str:
        """Wait for the gate."""
        self.entered += 1
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "through"


def make_fastmcp(gate: Gate | None = None) -> FastMCP[Any]:
    mcp: FastMCP[Any] = FastMCP("things", version="3")

    @mcp.tool
    async def echo(text: str) -> str:
        return text

    @mcp.tool
    def fail() -> str:
        raise ValueError("it broke")

    @mcp.tool
    def context() -> str:
        return whose.get()

    @mcp.tool
    async def ask(ctx: Context) -> str:
        return str(await ctx.session.list_roots())

    if gate is not None:
        mcp.tool(gate.stand)
    return mcp


def make_low_level() -> Server[Any]:
    async def list_tools(_context: Any, _params: Any) -> ListToolsResult:
        return ListToolsResult(tools=[Tool(name="echo", input_schema={"type": "object"})])

    async def call_tool(_context: Any, params: Any) -> CallToolResult:
        return CallToolResult(content=[TextContent(type="text", text=params.arguments["text"])])

    return Server("things", version="3", on_list_tools=list_tools, on_call_tool=call_tool)


def make_sdk_server() -> MCPServer:
    server = MCPServer("things", version="3")

    @server.tool()
    async def echo(text: str) -> str:
        return text

    return server


async def echo(text: str) -> str:
    return text


SERVERS = [
    make_fastmcp,
    make_low_level,
    make_sdk_server,
    lambda: tool_server("things", "3", [echo]),
]


def text_of(answer: dict[str, Any] | None) -> str:
    assert answer is not None
    text: str = answer["result"]["content"][0]["text"]
    return text


def code_of(answer: dict[str, Any] | None) -> int:
    assert answer is not None
    code: int = answer["error"]["code"]
    return code


@pytest.mark.parametrize("make", SERVERS)
async def test_every_kind_of_server_object_speaks_both_eras(make: Any) -> None:
    server = make()
    async with McpServerAdapter(server) as adapter:
        hello = await adapter.handle_message(initialize("first"))
        assert hello is not None
        assert hello["id"] == "first"
        assert hello["result"]["serverInfo"]["name"] == "things"
        ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert await adapter.handle_message(ready) is None
        listed = await adapter.handle_message(request(2, "tools/list"))
        assert listed is not None
        assert "echo" in [tool["name"] for tool in listed["result"]["tools"]]
        assert text_of(await adapter.handle_message(tool_call("echo", {"text": "hi"}))) == "hi"
    async with McpServerAdapter(server) as adapter:
        found = await adapter.handle_message(request(1, "server/discover", _meta=MODERN))
        assert found is not None
        assert "2026-07-28" in found["result"]["supportedVersions"]
        call = request(2, "tools/call", name="echo", arguments={"text": "hi"}, _meta=MODERN)
        assert text_of(await adapter.handle_message(call)) == "hi"


async def test_a_host_that_makes_no_handshake_is_served() -> None:
    async with McpServerAdapter(make_fastmcp()) as adapter:
        answers = await asyncio.gather(
            *(
                adapter.handle_message(tool_call("echo", {"text": str(n)}, message_id=n))
                for n in range(5)
            )
        )
        assert [text_of(answer) for answer in answers] == ["0", "1", "2", "3", "4"]
        hello = await adapter.handle_message(initialize(9))  # and may still make one
        assert hello is not None
        assert hello["result"]["protocolVersion"] == "2025-06-18"


@pytest.mark.parametrize("as_sent", [json.dumps, lambda m: json.dumps(m).encode(), lambda m: m])
async def test_a_message_is_text_bytes_or_an_object(as_sent: Any) -> None:
    async with McpServerAdapter(make_fastmcp()) as adapter:
        message = tool_call("echo", {"text": "ä"}, message_id="a")
        answer = await adapter.handle_message(as_sent(message))
        assert answer is not None
        assert answer["id"] == "a"
        assert text_of(answer) == "ä"


async def test_fifty_calls_at_once_each_get_their_own_answer() -> None:
    async with McpServerAdapter(make_fastmcp()) as adapter:
        # 1 and "1" are different ids.
        ids: list[int | str] = [*range(25), *map(str, range(25))]
        calls = [tool_call("echo", {"text": repr(n)}, message_id=n) for n in ids]
        answers = await asyncio.gather(*map(adapter.handle_message, calls))
    assert [(a["id"], text_of(a)) for a in answers if a] == [(n, repr(n)) for n in ids]


async def test_a_failing_tool_is_a_result_and_an_unknown_method_an_error() -> None:
    async with McpServerAdapter(make_fastmcp()) as adapter:
        for tool in ("fail", "no_such_tool"):
            answer = await adapter.handle_message(tool_call(tool))
            assert answer is not None
            assert answer["result"]["isError"] is True
        assert code_of(await adapter.handle_message(request(2, "no/such"))) == METHOD_NOT_FOUND


async def test_a_handler_runs_in_the_context_of_who_sent_the_message() -> None:
    async with McpServerAdapter(make_fastmcp()) as adapter:
        whose.set("mine")
        assert text_of(await adapter.handle_message(tool_call("context"))) == "mine"


@pytest.mark.filterwarnings("ignore:The roots capability is deprecated")
async def test_what_a_server_asks_of_its_client_is_refused_at_once() -> None:
    async with asyncio.timeout(PATIENCE_S), McpServerAdapter(make_fastmcp()) as adapter:
        hello = initialize()
        hello["params"]["capabilities"] = {"roots": {}, "sampling": {}}
        await adapter.handle_message(hello)
        answer = await adapter.handle_message(tool_call("ask"))
        assert answer is not None
        assert answer["result"]["isError"] is True
        assert "not supported by this client" in text_of(answer)


@pytest.mark.parametrize(
    "raw, code, message_id",
    [
        (b"", PARSE_ERROR, None),
        (b"{", PARSE_ERROR, None),
        (b"\xff\xfe", PARSE_ERROR, None),
        ("\ud800", PARSE_ERROR, None),
        ('{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": NaN}}', PARSE_ERROR, 1),
        ("[" * 40_000, PARSE_ERROR, None),
        ("[]", INVALID_REQUEST, None),
        ("3", INVALID_REQUEST, None),
        ({"id": 1, "method": "ping"}, INVALID_REQUEST, 1),
        ({"jsonrpc": "2.0", "id": "a"}, INVALID_REQUEST, "a"),
        ({"jsonrpc": "2.0", "id": 1, "method": 3}, INVALID_REQUEST, 1),
        ({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []}, INVALID_REQUEST, 1),
        ({"jsonrpc": "2.0", "id": None, "method": "ping"}, INVALID_REQUEST, None),
        ({"jsonrpc": "2.0", "id": True, "method": "ping"}, INVALID_REQUEST, None),
        ({"jsonrpc": "2.0", "id": 1.5, "method": "ping"}, INVALID_REQUEST, None),
        (
            {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": object()}},
            INVALID_REQUEST,
            1,
        ),
    ],
)
async def test_broken_input_is_answered_with_the_protocols_codes(
    raw: Any, code: int, message_id: int | str | None
) -> None:
    async with McpServerAdapter(make_fastmcp()) as adapter:
        answer = await adapter.handle_message(raw)
        assert answer is not None
        assert (answer["id"], code_of(answer)) == (message_id, code)
        assert text_of(await adapter.handle_message(tool_call("echo", {"text": "fine"}))) == "fine"


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
almost_messages = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | json_values,
        "id": st.integers() | json_values,
        "method": st.sampled_from(
            ["initialize", "tools/call", "tools/list", "ping", "notifications/cancelled"]
        )
        | json_values,
        "params": st.fixed_dictionaries(
            {}, optional={"name": json_values, "requestId": json_values, "_meta": json_values}
        )
        | json_values,
        "result": json_values,
        "error": json_values,
    },
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.binary() | st.text() | almost_messages | json_values.map(json.dumps), max_size=6)
)
def test_no_input_raises_or_hangs(raws: list[Any]) -> None:
    async def feed() -> None:
        async with (
            asyncio.timeout(PATIENCE_S),
            McpServerAdapter(tool_server("things", tools=[echo])) as adapter,
        ):
            for raw in raws:
                answer = await adapter.handle_message(raw)
                assert answer is None or ("error" in answer) != ("result" in answer)
                json.dumps(answer, allow_nan=False)

    asyncio.run(feed())


async def test_a_message_over_the_limit_is_refused_whatever_its_form() -> None:
    async with McpServerAdapter(make_fastmcp(), max_message_bytes=1000) as adapter:
        big = tool_call("echo", {"text": "ä" * 600}, message_id=7)  # 1200 bytes
        for raw in (big, json.dumps(big, ensure_ascii=False), json.dumps(big).encode()):
            assert code_of(await adapter.handle_message(raw)) == INVALID_REQUEST
        small = tool_call("echo", {"text": "ä" * 400})
        assert text_of(await adapter.handle_message(small)) == "ä" * 400


async def test_more_than_the_limit_in_flight_is_refused_and_room_comes_back() -> None:
    gate = Gate()
    async with McpServerAdapter(make_fastmcp(gate), max_in_flight=2) as adapter:
        calls = [
            asyncio.create_task(adapter.handle_message(tool_call("stand", message_id=n)))
            for n in range(2)
        ]
        await until(lambda: gate.entered == 2)
        assert code_of(await adapter.handle_message(tool_call("echo", message_id=9))) == OVERLOADED
        gate.opened.set()
        assert [text_of(await call) for call in calls] == ["through", "through"]
        assert text_of(await adapter.handle_message(tool_call("echo", {"text": "x"}))) == "x"


async def test_an_id_that_is_in_flight_is_refused() -> None:
    gate = Gate()
    async with McpServerAdapter(make_fastmcp(gate)) as adapter:
        first = asyncio.create_task(adapter.handle_message(tool_call("stand", message_id=1)))
        await until(lambda: gate.entered == 1)
        again = tool_call("echo", {"text": "x"}, message_id=1)
        assert code_of(await adapter.handle_message(again)) == INVALID_REQUEST
        gate.opened.set()
        assert text_of(await first) == "through"


async def test_a_cancelled_request_ends_at_both_ends_and_no_other_does() -> None:
    gate = Gate()
    async with McpServerAdapter(make_fastmcp(gate)) as adapter:
        by_id = {
            n: asyncio.create_task(adapter.handle_message(tool_call("stand", message_id=n)))
            for n in (1, "1")
        }
        await until(lambda: gate.entered == 2)
        cancel = {"method": "notifications/cancelled", "params": {"requestId": "1"}}
        assert await adapter.handle_message({"jsonrpc": "2.0", **cancel}) is None
        assert code_of(await by_id["1"]) == REQUEST_CANCELLED
        await until(lambda: gate.cancelled == 1)
        gate.opened.set()
        assert text_of(await by_id[1]) == "through"


async def test_a_request_that_waits_for_the_handshake_can_be_cancelled() -> None:
    gate = Gate()
    async with asyncio.timeout(PATIENCE_S), McpServerAdapter(make_fastmcp(gate)) as adapter:
        calls = [
            asyncio.create_task(adapter.handle_message(tool_call("stand", message_id=n)))
            for n in (1, 2, 3)
        ]
        await asyncio.sleep(0)  # the first has begun the handshake, the others wait for it
        calls[0].cancel()
        cancelled = {"requestId": 2}
        await adapter.handle_message(
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled}
        )
        answer = await calls[1]
        assert answer is not None
        assert answer["error"]["code"] == REQUEST_CANCELLED
        await until(lambda: gate.entered == 1)
        gate.opened.set()
        assert await calls[2] is not None
        assert calls[0].cancelled()
    assert gate.entered == 1


async def test_messages_and_the_end_may_come_while_it_connects() -> None:
    adapter = McpServerAdapter(make_fastmcp())
    connecting = asyncio.create_task(adapter.connect())
    await asyncio.sleep(0)
    assert await adapter.handle_message(request(1, "ping")) == {
        "jsonrpc": "2.0",
        "id": 1,
        "result": {},
    }
    await connecting
    await adapter.close()
    connecting = asyncio.create_task(adapter.connect())
    await asyncio.sleep(0)
    async with asyncio.timeout(CLOSE_GRACE_S - 1):  # that is for tools that hold it up
        await adapter.close()
    await connecting
    assert not adapter.is_connected


async def test_cancelling_the_caller_cancels_the_call_in_the_server() -> None:
    gate = Gate()
    async with McpServerAdapter(make_fastmcp(gate), max_in_flight=1) as adapter:
        call = asyncio.create_task(adapter.handle_message(tool_call("stand")))
        await until(lambda: gate.entered == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: gate.cancelled == 1)
        # Its slot is free as soon as the server is done with it, and its id is too.
        async with asyncio.timeout(PATIENCE_S):
            while "error" in (answer := await adapter.handle_message(request(1, "ping")) or {}):
                assert code_of(answer) in (OVERLOADED, INVALID_REQUEST)
                await asyncio.sleep(0)


async def test_closing_answers_what_is_in_flight_and_leaves_the_server_usable() -> None:
    gate = Gate()
    server = make_fastmcp(gate)
    adapter = McpServerAdapter(server)
    await adapter.connect()
    calls = [
        asyncio.create_task(adapter.handle_message(tool_call("stand", message_id=n)))
        for n in range(10)
    ]
    await until(lambda: gate.entered == 10)
    async with asyncio.timeout(PATIENCE_S):
        await adapter.close()
        assert [code_of(await call) for call in calls] == [CONNECTION_CLOSED] * 10
    assert gate.cancelled == 10
    after = await adapter.handle_message(tool_call("echo", {"text": "x"}))
    assert code_of(after) == CONNECTION_CLOSED
    async with McpServerAdapter(server) as other, adapter:
        for one in (other, adapter):
            assert text_of(await one.handle_message(tool_call("echo", {"text": "x"}))) == "x"


async def test_a_tool_that_holds_on_to_a_thread_does_not_hold_up_closing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared_context_server.embed.adapter.CLOSE_GRACE_S", 0.05)
    entered, released = anyio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold() -> str:
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(released.wait(), loop).result(PATIENCE_S)
        return "late"

    adapter = McpServerAdapter(tool_server("things", tools=[hold]))
    await adapter.connect()
    session = adapter._session
    call = asyncio.create_task(adapter.handle_message(tool_call("hold")))
    async with asyncio.timeout(PATIENCE_S):
        await entered.wait()
        await adapter.close()
        assert code_of(await call) == CONNECTION_CLOSED
        released.set()
        assert session is not None
        await asyncio.wait({session._task})


async def test_a_server_that_cannot_start_says_why_and_may_be_started_again() -> None:
    class Flaky(Server[Any]):
        is_broken = True

        async def run(self, *args: Any, **options: Any) -> None:
            if self.is_broken:
                raise OSError("no disk")
            await super().run(*args, **options)

    server = Flaky("flaky")
    async with asyncio.timeout(PATIENCE_S), McpServerAdapter(server) as adapter:
        answer = await adapter.handle_message(initialize())
        assert answer is not None
        assert answer["error"]["message"] == "The server has failed: no disk"
        await until(lambda: not adapter.is_connected)
        server.is_broken = False
        await adapter.connect()
        assert "result" in (await adapter.handle_message(initialize()) or {})


@pytest.mark.parametrize("thing", [None, "a name", {"type": "stdio", "command": "x"}, object()])
def test_what_is_no_server_object_is_refused(thing: object) -> None:
    with pytest.raises(TypeError, match="not an MCP server object"):
        McpServerAdapter(thing)


@pytest.mark.parametrize("thing", [None, "a name"])
def test_what_is_no_function_is_no_tool(thing: Any) -> None:
    with pytest.raises(TypeError, match="not a function"):
        tool_server("things", tools=[thing])
