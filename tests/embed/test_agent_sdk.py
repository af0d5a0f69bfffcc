"""The Claude Agent SDK itself, with a transport that plays the command line's part.

Run by `make test-agent-sdk`: the SDK is too large for the development environment.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastmcp import FastMCP

from shared_context_server.embed import (
    ToolTimings,
    agent_options,
    create_clock_server,
    create_sdk_server,
    servers_for_cli,
    tool_server,
    tool_timings,
)
from shared_context_server.errors import ConfigurationError
from shared_context_server.tools.catalog import TOOLS
from tests.embed.conftest import PATIENCE_S, initialize, request, tool_call
from tests.until import until

sdk = pytest.importorskip("claude_agent_sdk", reason="run by make test-agent-sdk")


class FakeCli(sdk.Transport):  # type: ignore[misc]
    """Claude Code's side of the control protocol: it asks, the SDK answers."""

    def __init__(self) -> None:
        self.hooks: dict[str, Any] = {}
        self._lines: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._answers: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def connect(self) -> None:
        pass

    def is_ready(self) -> bool:
        return True

    async def end_input(self) -> None:
        pass

    async def close(self) -> None:
        self._lines.put_nowait(None)

    async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        while (line := await self._lines.get()) is not None:
            yield line

    async def write(self, data: str) -> None:
        for line in data.splitlines():
            message = json.loads(line)
            if message["type"] == "control_request":  # the SDK's own: its initialize
                self.hooks = message["request"].get("hooks") or {}
                done = {"subtype": "success", "request_id": message["request_id"], "response": {}}
                self._lines.put_nowait({"type": "control_response", "response": done})
            elif message["type"] == "control_response":
                response = message["response"]
                self._answers[response["request_id"]].set_result(response)

    async def ask(self, **body: Any) -> dict[str, Any]:
        """The SDK's answer to a control request."""
        request_id = f"cli-{len(self._answers)}"
        answer = self._answers[request_id] = asyncio.get_running_loop().create_future()
        self._lines.put_nowait(
            {"type": "control_request", "request_id": request_id, "request": body}
        )
        async with asyncio.timeout(PATIENCE_S):
            response: dict[str, Any] = await answer
        assert response["subtype"] == "success", response
        return response["response"]  # type: ignore[no-any-return]

    async def send(self, server: str, message: dict[str, Any]) -> dict[str, Any]:
        answer = await self.ask(subtype="mcp_message", server_name=server, message=message)
        mcp_response: dict[str, Any] = answer["mcp_response"]
        return mcp_response

    async def call(self, server: str, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """Call a tool, with the hooks around it, as the command line does."""
        message_id = len(self._answers)
        named = {"tool_name": f"mcp__{server}__{tool}", "tool_input": arguments}
        await self._run_hooks("PreToolUse", f"toolu_{message_id}", named)
        answer = await self.send(server, tool_call(tool, arguments, message_id=message_id))
        failed = answer["result"]["isError"]
        ended = "PostToolUseFailure" if failed else "PostToolUse"
        await self._run_hooks(ended, f"toolu_{message_id}", named)
        assert answer["id"] == message_id
        result: dict[str, Any] = answer["result"]
        return result

    async def _run_hooks(self, event: str, tool_use_id: str, named: dict[str, Any]) -> None:
        for matcher in self.hooks.get(event, ()):
            for callback_id in matcher["hookCallbackIds"]:
                answer = await self.ask(
                    subtype="hook_callback",
                    callback_id=callback_id,
                    input={"hook_event_name": event, **named},
                    tool_use_id=tool_use_id,
                )
                assert answer == {}


@asynccontextmanager
async def running(options: Any) -> AsyncIterator[FakeCli]:
    cli = FakeCli()
    async with asyncio.timeout(PATIENCE_S), sdk.ClaudeSDKClient(options, transport=cli):
        yield cli


async def shake_hands(cli: FakeCli, server: str) -> dict[str, Any]:
    hello = await cli.send(server, initialize())
    await cli.send(server, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    result: dict[str, Any] = hello["result"]
    return result


async def test_an_agent_works_with_the_server_in_its_own_process(data_dir: Path) -> None:
    options = agent_options(agent_id="alice", data_dir=data_dir)
    assert not data_dir.exists()
    async with running(options) as cli:
        hello = await shake_hands(cli, "shared_context")
        assert hello["serverInfo"]["name"] == "shared_context"
        listed = await cli.send("shared_context", request(1, "tools/list"))
        served = [tool["name"] for tool in listed["result"]["tools"]]
        assert served == [tool.name for tool in TOOLS]
        admins = {"get_audit_log"}
        assert options.allowed_tools == [
            f"mcp__shared_context__{name}" for name in served if name not in admins
        ]
        made = await cli.call("shared_context", "create_session", purpose="x")
        session_id = made["structuredContent"]["session_id"]
        assert made["structuredContent"]["created_by"] == "alice"
        wrong = await cli.call("shared_context", "add_message", session_id=session_id)
        assert wrong["isError"] is True
        assert wrong["structuredContent"]["code"] == "INVALID_ARGUMENT"
        unknown = await cli.send("shared_context", request(2, "no/such"))
        assert unknown["error"]["code"] == -32601
        read = await cli.send(
            "shared_context", request(3, "resources/read", uri=f"session://{session_id}")
        )
        assert session_id in read["result"]["contents"][0]["text"]


async def test_fifty_calls_at_once(data_dir: Path) -> None:
    async with running(agent_options(agent_id="alice", data_dir=data_dir)) as cli:
        await shake_hands(cli, "shared_context")
        made = await cli.call("shared_context", "create_session", purpose="x")
        session_id = made["structuredContent"]["session_id"]
        writes = [
            cli.send(
                "shared_context",
                tool_call(
                    "add_message",
                    {"session_id": session_id, "content": str(n)},
                    message_id=1000 + n,
                ),
            )
            for n in range(50)
        ]
        answers = await asyncio.gather(*writes)
    assert sorted(a["id"] for a in answers) == list(range(1000, 1050))
    seqs = [a["result"]["structuredContent"]["seq"] for a in answers]
    assert sorted(seqs) == list(range(1, 51))


async def test_two_agents_on_one_data_dir_wake_each_other(data_dir: Path) -> None:
    async with (
        running(agent_options("hub", agent_id="alice", data_dir=data_dir)) as alice,
        running(agent_options("hub", agent_id="bob", data_dir=data_dir)) as bob,
    ):
        for cli in (alice, bob):
            await shake_hands(cli, "hub")
        made = await alice.call("hub", "create_session", purpose="x")
        session_id = made["structuredContent"]["session_id"]
        waiting = asyncio.create_task(
            bob.call("hub", "wait_for_messages", session_id=session_id, timeout_seconds=100)
        )
        await bob.call("hub", "get_time")
        await alice.call("hub", "add_message", session_id=session_id, content="wake up")
        woken = (await waiting)["structuredContent"]
        assert [message["content"] for message in woken["messages"]] == ["wake up"]


async def test_servers_of_all_kinds_live_beside_each_other(data_dir: Path) -> None:
    def double(n: int) -> int:
        return 2 * n

    mcp: FastMCP[Any] = FastMCP("users own")
    mcp.tool(double)
    own = {"type": "sdk", "name": "users own", "instance": mcp._mcp_server}
    external = {"type": "http", "url": "https://example.com/mcp"}
    options = agent_options(
        "hub",
        agent_id="alice",
        data_dir=data_dir,
        mcp_servers={
            "own": own,
            "functions": tool_server("functions", tools=[double]),
            "clock": create_clock_server(),
            "web": external,
        },
        allowed_tools=["Read", "mcp__own__double"],
        max_turns=3,
    )
    assert options.max_turns == 3
    assert options.allowed_tools[:2] == ["Read", "mcp__own__double"]
    assert "mcp__hub__get_messages" in options.allowed_tools
    passed = json.loads(servers_for_cli(options.mcp_servers))["mcpServers"]
    assert passed["web"] == external
    assert passed["hub"] == {"type": "sdk", "name": "hub"}
    async with running(options) as cli:
        for name in ("own", "functions", "clock", "hub"):
            await shake_hands(cli, name)
        for name in ("own", "functions"):
            assert (await cli.call(name, "double", n=4))["structuredContent"] == {"result": 8}
        assert (await cli.call("clock", "get_time"))["isError"] is False
        assert (await cli.call("hub", "list_sessions"))["isError"] is False
        assert (await cli.send("web", request(1, "tools/list")))["error"]["code"] == -32601


async def test_what_the_sdk_passes_to_the_command_line_is_what_we_pass(data_dir: Path) -> None:
    transports = pytest.importorskip("claude_agent_sdk._internal.transport.subprocess_cli")
    options = agent_options(
        "hub",
        agent_id="alice",
        data_dir=data_dir,
        cli_path="/nonexistent",
        mcp_servers={"files": {"command": "files"}},
    )
    command = transports.SubprocessCLITransport(prompt="", options=options)._build_command()
    passed = command[command.index("--mcp-config") + 1]
    assert json.loads(servers_for_cli(options.mcp_servers)) == json.loads(passed)


async def test_timing_records_every_tool_by_its_hooks(data_dir: Path) -> None:
    seen: list[str] = []

    async def users_hook(input_data: Any, _tool_use_id: Any, _context: Any) -> dict[str, Any]:
        seen.append(input_data["tool_name"])
        return {}

    options = agent_options(
        "hub",
        agent_id="alice",
        data_dir=data_dir,
        timing=True,
        hooks={"PreToolUse": [sdk.HookMatcher(matcher="mcp__.*", hooks=[users_hook])]},
    )
    timings = tool_timings(options)
    async with running(options) as cli:
        await shake_hands(cli, "hub")
        await asyncio.gather(*(cli.call("hub", "list_sessions") for _ in range(5)))
        assert (await cli.call("hub", "get_messages"))["isError"] is True
        assert (await cli.call("hub", "get_time"))["isError"] is False
    assert set(timings.by_tool()) == {
        "mcp__hub__list_sessions",
        "mcp__hub__get_messages",
        "mcp__hub__get_time",
    }
    listed = timings["mcp__hub__list_sessions"]
    assert listed.count == 5
    assert 0 < listed.p50_ms <= listed.p99_ms < PATIENCE_S * 1000
    assert len(seen) == 7


def test_the_record_may_be_the_users_own_or_none(data_dir: Path) -> None:
    record = ToolTimings()
    options = agent_options(agent_id="alice", data_dir=data_dir, timing=record)
    assert tool_timings(options) is record
    with pytest.raises(LookupError):
        tool_timings(agent_options(agent_id="alice", data_dir=data_dir))


def test_only_tools_that_the_permissions_allow_are_allowed(data_dir: Path) -> None:
    def allowed(*permissions: str) -> set[str]:
        options = agent_options("k", agent_id="a", data_dir=data_dir, permissions=permissions)
        return {name.removeprefix("mcp__k__") for name in options.allowed_tools}

    assert "add_message" not in allowed("read")
    assert {"get_messages", "add_message"} <= allowed("read", "write")
    assert allowed("read", "write", "admin") == {tool.name for tool in TOOLS}


@pytest.mark.parametrize("as_given", [lambda path: path, str, lambda path: path.read_text()])
def test_servers_of_a_config_are_kept(
    tmp_path: Path, data_dir: Path, as_given: Callable[[Path], Any]
) -> None:
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"files": {"command": "files"}}}))
    options = agent_options(agent_id="alice", data_dir=data_dir, mcp_servers=as_given(path))
    assert options.mcp_servers["files"] == {"command": "files"}
    assert options.mcp_servers["shared_context"]["type"] == "sdk"


@pytest.mark.parametrize(
    "options, named",
    [
        ({"key": "a b"}, "key"),
        ({"key": "a__b"}, "key"),
        ({"key": "taken", "mcp_servers": {"taken": {"command": "x"}}}, "'taken'"),
        ({"mcp_servers": "no-such-file.json"}, "mcp_servers"),
        ({"mcp_servers": "{}"}, "mcp_servers"),
        ({"permissions": ("fly",)}, "permissions"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], named: str, data_dir: Path) -> None:
    with pytest.raises(ConfigurationError, match=named):
        agent_options(agent_id="alice", data_dir=data_dir, **options)


async def test_leaving_the_client_closes_the_server(data_dir: Path) -> None:
    entry = create_sdk_server("hub", agent_id="alice", data_dir=data_dir)
    before = len(asyncio.all_tasks())
    async with running(sdk.ClaudeAgentOptions(mcp_servers={"hub": entry})) as cli:
        await shake_hands(cli, "hub")
        assert len(asyncio.all_tasks()) > before
    await until(lambda: len(asyncio.all_tasks()) == before)


async def test_the_real_command_line_connects_without_a_model(
    data_dir: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    options = agent_options(
        "hub",
        agent_id="alice",
        data_dir=data_dir,
        cwd=home,
        env={
            "HOME": str(home),
            "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        },
        mcp_servers={"clock": create_clock_server()},
    )
    async with asyncio.timeout(2 * PATIENCE_S), sdk.ClaudeSDKClient(options) as client:
        servers: dict[str, Any] = {}
        while not servers or "pending" in {server["status"] for server in servers.values()}:
            status = await client.get_mcp_status()
            servers = {server["name"]: server for server in status["mcpServers"]}
    assert {name: server["status"] for name, server in servers.items()} == {
        "hub": "connected",
        "clock": "connected",
    }
    assert len(servers["hub"]["tools"]) == len(TOOLS)
