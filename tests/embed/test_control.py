"""ControlRouter and servers_for_cli: what a host of the command line has to answer and to pass."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fastmcp import FastMCP
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_context_server.embed import ControlRouter, servers_for_cli, tool_server
from shared_context_server.jsonrpc import INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR
from tests.embed.conftest import PATIENCE_S, initialize, request, tool_call
from tests.embed.test_adapter import Gate, echo, json_values, make_low_level
from tests.until import until


def control_line(
    message: Any, server: Any = "things", *, request_id: Any = "r1", **request: Any
) -> str:
    body = {"subtype": "mcp_message", "server_name": server, "message": message, **request}
    return json.dumps({"type": "control_request", "request_id": request_id, "request": body})


def read_answer(line: str | None, request_id: Any = "r1") -> dict[str, Any]:
    assert line is not None
    assert line.endswith("\n")
    assert "\n" not in line[:-1]
    response = json.loads(line)
    assert response["type"] == "control_response"
    assert response["response"]["subtype"] == "success"
    assert response["response"]["request_id"] == request_id
    answer: dict[str, Any] = response["response"]["response"]["mcp_response"]
    return answer


def make_router(**more: object) -> ControlRouter:
    return ControlRouter({"things": tool_server("things", tools=[echo]), **more})


@pytest.mark.parametrize(
    "named",
    [
        {"subtype": "mcp_message", "server_name": "things"},
        {"subtype": "sdk_mcp_request", "serverName": "things"},
        {"subtype": "sdk_mcp_request", "server_name": "things"},
    ],
)
async def test_both_spellings_of_a_control_request_are_answered(named: dict[str, str]) -> None:
    body = {**named, "message": tool_call("echo", {"text": "hi"}, message_id=7)}
    line = json.dumps({"type": "control_request", "request_id": "r1", "request": body})
    async with make_router() as router:
        for given_as in (line, line.encode() + b"\n", json.loads(line)):
            answer = read_answer(await router.handle(given_as))
            assert answer["id"] == 7
            assert answer["result"]["content"][0]["text"] == "hi"


async def test_a_notification_is_acknowledged() -> None:
    async with make_router() as router:
        assert "result" in read_answer(await router.handle(control_line(initialize())))
        ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        answer = read_answer(await router.handle(control_line(ready)))
        assert answer == {"jsonrpc": "2.0", "result": {}}


async def test_servers_of_every_kind_live_beside_each_other() -> None:
    mcp: FastMCP[Any] = FastMCP("more")
    mcp.tool(echo)
    async with make_router(fast=mcp, low=make_low_level()) as router:
        for name in ("things", "fast", "low"):
            line = control_line(tool_call("echo", {"text": name}), name)
            answer = read_answer(await router.handle(line))
            assert answer["result"]["content"][0]["text"] == name


@pytest.mark.parametrize(
    "line, code, request_id, message_id",
    [
        (control_line(request(3, "tools/list"), "nowhere"), METHOD_NOT_FOUND, "r1", 3),
        (control_line(request(3, "no/such")), METHOD_NOT_FOUND, "r1", 3),
        (control_line({"jsonrpc": "1.0", "id": 3, "method": "ping"}), INVALID_REQUEST, "r1", 3),
        (control_line("{broken"), PARSE_ERROR, "r1", None),
        (control_line(None), INVALID_REQUEST, "r1", None),
        (control_line([1]), INVALID_REQUEST, "r1", None),
        (control_line(request(3, "ping"), None), INVALID_REQUEST, "r1", 3),
        (control_line(request(3, "no/such"), request_id=None), METHOD_NOT_FOUND, None, 3),
        ('{"type": "control_request", "request_id": "r1"}', INVALID_REQUEST, "r1", None),
        ("{broken", PARSE_ERROR, None, None),
        (b"\xff", PARSE_ERROR, None, None),
        ("[]", INVALID_REQUEST, None, None),
    ],
)
async def test_what_cannot_be_served_is_a_json_rpc_error(
    line: str | bytes, code: int, request_id: str | None, message_id: int | None
) -> None:
    async with make_router() as router:
        answer = read_answer(await router.handle(line), request_id)
        assert (answer["error"]["code"], answer["id"]) == (code, message_id)


@pytest.mark.parametrize(
    "line",
    [
        {"type": "assistant", "message": {}},
        {"type": "control_response", "response": {}},
        {"type": "control_request", "request_id": "r", "request": {"subtype": "can_use_tool"}},
        {"type": "control_request", "request_id": "r", "request": {"subtype": ["mcp_message"]}},
        {"type": "control_cancel_request", "request_id": "unknown"},
        {"type": "control_cancel_request", "request_id": ["no", "id"]},
        {},
    ],
)
async def test_what_is_the_hosts_business_is_not_answered(line: dict[str, Any]) -> None:
    async with make_router() as router:
        assert await router.handle(json.dumps(line)) is None


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.binary()
        | st.text()
        | st.builds(control_line, json_values, json_values, request_id=json_values)
        | st.builds(
            lambda kind, body: json.dumps({"type": kind, "request": body, "request_id": body}),
            st.sampled_from(["control_request", "control_cancel_request"]),
            json_values,
        ),
        max_size=6,
    )
)
def test_no_line_raises_or_hangs(lines: list[Any]) -> None:
    async def feed() -> None:
        async with asyncio.timeout(PATIENCE_S), make_router() as router:
            for line in lines:
                answer = await router.handle(line)
                assert answer is None or json.loads(answer)["type"] == "control_response"

    asyncio.run(feed())


async def test_fifty_requests_at_once_are_answered_each_by_its_id() -> None:
    async with asyncio.timeout(PATIENCE_S), make_router() as router:
        # The command line counts its messages per server, and its requests by itself.
        lines = [
            control_line(tool_call("echo", {"text": str(n)}, message_id=n), request_id=f"r{n}")
            for n in range(50)
        ]
        answers = await asyncio.gather(*map(router.handle, lines))
    for n, line in enumerate(answers):
        answer = read_answer(line, f"r{n}")
        assert (answer["id"], answer["result"]["content"][0]["text"]) == (n, str(n))


async def test_a_cancelled_control_request_is_stopped_and_not_answered() -> None:
    gate = Gate()
    async with ControlRouter({"things": tool_server("things", tools=[gate.stand])}) as router:
        call = asyncio.create_task(router.handle(control_line(tool_call("stand"))))
        await until(lambda: gate.entered == 1)
        cancel = json.dumps({"type": "control_cancel_request", "request_id": "r1"})
        async with asyncio.timeout(PATIENCE_S):
            assert await router.handle(cancel) is None
            assert await call is None
            await until(lambda: gate.cancelled == 1)
        # The id is free again, and its next request is answered.
        read_answer(await router.handle(control_line(request(1, "ping"))))


async def test_a_request_that_its_server_does_not_have_yet_can_be_cancelled() -> None:
    gate = Gate()
    async with ControlRouter({"things": tool_server("things", tools=[gate.stand])}) as router:
        messages = {f"r{n}": tool_call("stand", message_id=n) for n in (1, 2)}
        messages["r3"] = json.dumps(tool_call("stand", message_id=3))
        lines = [control_line(message, request_id=name) for name, message in messages.items()]
        calls = asyncio.gather(*map(router.handle, lines))
        await asyncio.sleep(0)  # each is handled as far as it goes, and waits for the server
        for name in messages:
            await router.handle({"type": "control_cancel_request", "request_id": name})
        async with asyncio.timeout(PATIENCE_S):
            assert await calls == [None, None, None]
            read_answer(await router.handle(control_line(request(1, "ping"))))
    assert gate.entered == 0


async def test_text_that_is_no_unicode_still_makes_a_line() -> None:
    def cut():  # type: ignore[no-untyped-def]  # with a return type FastMCP refuses the text itself
        return "half a \ud83d"

    def cut_text() -> str:
        return "half a \ud83d"

    tools = [cut, cut_text]
    async with ControlRouter({"things": tool_server("things", tools=tools)}) as router:
        answer = read_answer(await router.handle(control_line(tool_call("cut"))))
        refusal = read_answer(await router.handle(control_line(tool_call("cut_text"))))
    assert answer["result"]["content"][0]["text"] == "half a ?"
    assert refusal["result"]["isError"]
    assert "surrogates not allowed" in refusal["result"]["content"][0]["text"]


async def test_closing_answers_what_is_in_flight_and_the_next_message_starts_anew() -> None:
    gate = Gate()
    router = ControlRouter({"things": tool_server("things", tools=[gate.stand])})
    call = asyncio.create_task(router.handle(control_line(tool_call("stand"))))
    await until(lambda: gate.entered == 1)
    async with asyncio.timeout(PATIENCE_S):
        await router.close()
        assert "error" in read_answer(await call)
        assert "result" in read_answer(await router.handle(control_line(request(1, "ping"))))
        await router.close()


def test_the_command_line_gets_names_of_own_servers_and_all_of_external_ones() -> None:
    entry = tool_server("calculator", tools=[echo])
    external = {
        "files": {"command": "files", "args": ["--ro"], "env": {"A": "b"}},
        "old": {"type": "sse", "url": "https://example.com/sse"},
        "web": {"type": "http", "url": "https://example.com/mcp", "headers": {"X": "y"}},
    }
    config: dict[str, Any] = {"calc": entry, **external}
    assert json.loads(servers_for_cli(config)) == {
        "mcpServers": {"calc": {"type": "sdk", "name": "calculator"}, **external}
    }
    assert entry["instance"] is config["calc"]["instance"]  # the entry itself is left as it was
    assert json.loads(servers_for_cli({})) == {"mcpServers": {}}


@pytest.mark.parametrize("path", ["mcp.json", Path("some/where/mcp.json")])
def test_a_config_file_is_passed_on_by_its_path(path: str | Path) -> None:
    assert servers_for_cli(path) == str(path)


def test_an_entry_that_is_no_configuration_is_named() -> None:
    with pytest.raises(TypeError, match="'calc'"):
        servers_for_cli({"calc": FastMCP("calc")})
