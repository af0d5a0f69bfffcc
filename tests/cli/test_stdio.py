"""`serve --transport stdio`, driven by the official MCP client and by hand."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client, StdioServerParameters
from mcp_types import Implementation

from tests.cli.conftest import COMMAND, PATIENCE_S, STOP_S, Run, Serve
from tests.forked import ForkedProcess

STDIO = ["serve", "--transport", "stdio"]
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "by-hand", "version": "1"},
    },
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
CREATE_SESSION = {
    "jsonrpc": "2.0",
    "id": 2,
    "method": "tools/call",
    "params": {"name": "create_session", "arguments": {"purpose": "by hand"}},
}

Connect = Callable[..., Client]
Process = subprocess.Popen[str] | ForkedProcess


@pytest.fixture
def env(env: dict[str, str]) -> dict[str, str]:
    """With the data dir under the one name that counts here."""
    return env | {"SCS_DATA_DIR": env["DATA_DIR"]}


@pytest.fixture
def connect(env: dict[str, str], tmp_path: Path) -> Connect:
    """An MCP client that starts a server of its own when it is entered."""

    def make(*arguments: str, name: str = "some-client", **variables: str) -> Client:
        return Client(
            StdioServerParameters(
                command=COMMAND[0],
                args=[*COMMAND[1:], *STDIO, *arguments],
                env=env | variables,
                cwd=tmp_path,
            ),
            client_info=Implementation(name=name, version="1"),
            read_timeout_seconds=PATIENCE_S,
        )

    return make


async def call(client: Client, tool: str, **arguments: object) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert isinstance(result.structured_content, dict)
    return result.structured_content


@contextmanager
def executed(env: dict[str, str], cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A process whose streams the test holds."""
    with subprocess.Popen(
        [*COMMAND, *STDIO],
        env=env,
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@contextmanager
def by_hand(env: dict[str, str], cwd: Path, *arguments: str) -> Iterator[ForkedProcess]:
    """The same, forked."""
    process = ForkedProcess([*STDIO, *arguments], env, cwd, has_stdin=True)
    with process.stdin, process.stdout, process.stderr:
        try:
            yield process
        finally:
            process.kill()


def ask(process: Process, method: str, **params: Any) -> dict[str, Any]:
    """The result of one request. The process has been initialized."""
    send(process, {"jsonrpc": "2.0", "id": 3, "method": method, "params": params})
    result: dict[str, Any] = receive(process)["result"]
    return result


def use(process: Process, tool: str, **arguments: Any) -> dict[str, Any]:
    """The same of one call."""
    result = ask(process, "tools/call", name=tool, arguments=arguments)
    content: dict[str, Any] = result["structuredContent"]
    return content


def send(process: Process, *messages: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.writelines(json.dumps(message) + "\n" for message in messages)
    process.stdin.flush()


def receive(process: Process) -> dict[str, Any]:
    assert process.stdout is not None
    message: dict[str, Any] = json.loads(process.stdout.readline())
    return message


@pytest.mark.parametrize(
    "arguments, variables, agent_id",
    [
        (["--agent-id", "alice"], {}, "alice"),
        ([], {"SCS_AGENT_ID": "bob"}, "bob"),
        (["--agent-id", "alice"], {"SCS_AGENT_ID": "bob"}, "alice"),
        ([], {}, "by-hand"),
    ],
)
def test_the_client_is_who_it_is_started_as(
    env: dict[str, str],
    tmp_path: Path,
    arguments: list[str],
    variables: dict[str, str],
    agent_id: str,
) -> None:
    with by_hand(env | variables, tmp_path, *arguments) as process:
        send(process, INITIALIZE, INITIALIZED, CREATE_SESSION)
        receive(process)
        assert receive(process)["result"]["structuredContent"]["created_by"] == agent_id


def test_a_local_client_may_read_and_write_but_not_administer(
    env: dict[str, str], tmp_path: Path
) -> None:
    with by_hand(env, tmp_path) as process:
        send(process, INITIALIZE, INITIALIZED)
        receive(process)
        session_id = use(process, "create_session", purpose="x")["session_id"]
        assert use(process, "add_message", session_id=session_id, content="hi")["seq"] == 1
        assert use(process, "get_audit_log")["code"] == "PERMISSION_DENIED"


def test_the_session_of_claude_code_is_the_instance_unless_a_call_names_another(
    env: dict[str, str], tmp_path: Path
) -> None:
    with by_hand(env | {"CLAUDE_CODE_SESSION_ID": "8c0f"}, tmp_path) as process:
        send(process, INITIALIZE, INITIALIZED)
        receive(process)
        assert use(process, "acquire_lease", name="x")["instance"] == "8c0f"
        call = {"name": "set_status", "arguments": {"text": "x"}, "_meta": {"threadId": "one"}}
        said = ask(process, "tools/call", **call)["structuredContent"]
        assert said["instance"] == "one"


def test_the_agent_type_decides_on_agent_only_messages(env: dict[str, str], tmp_path: Path) -> None:
    with (
        by_hand(env, tmp_path, "--agent-id", "a", "--agent-type", "claude") as claude,
        by_hand(env | {"SCS_AGENT_TYPE": "claude"}, tmp_path, "--agent-id", "b") as alike,
        by_hand(env, tmp_path, "--agent-id", "c") as other,
    ):
        for process in (claude, alike, other):
            send(process, INITIALIZE, INITIALIZED)
            receive(process)
        where = {"session_id": use(claude, "create_session", purpose="x")["session_id"]}
        use(claude, "add_message", content="hi", visibility="agent_only", **where)
        assert use(alike, "get_messages", **where)["count"] == 1
        assert use(other, "get_messages", **where)["count"] == 0


async def test_processes_that_share_a_data_dir_share_a_session(connect: Connect) -> None:
    each = 20
    async with connect("--agent-id", "a") as first, connect("--agent-id", "b") as second:
        session_id = (await call(first, "create_session", purpose="shared"))["session_id"]
        writes = [
            call(client, "add_message", session_id=session_id, content=f"message {n}")
            for n in range(each)
            for client in (first, second)
        ]
        assert all(answer["success"] for answer in await asyncio.gather(*writes))
        seen = [await call(c, "get_messages", session_id=session_id) for c in (first, second)]
    assert seen[0]["messages"] == seen[1]["messages"]
    assert [m["seq"] for m in seen[0]["messages"]] == list(range(1, 2 * each + 1))
    assert {m["sender"] for m in seen[0]["messages"]} == {"a", "b"}


def test_a_process_and_a_server_share_a_data_dir(
    env: dict[str, str], tmp_path: Path, serve: Serve
) -> None:
    with serve() as server:
        with by_hand(env, tmp_path) as process:
            send(process, INITIALIZE, INITIALIZED)
            receive(process)
            session_id = use(process, "create_session", purpose="x")["session_id"]
            use(process, "add_message", session_id=session_id, content="over stdio")
        answer = httpx.post(
            f"{server.url}/mcp/tool/get_messages",
            headers={"X-API-Key": server.secrets["API_KEY"]},
            json={"session_id": session_id},
        )
    assert [m["content"] for m in answer.json()["messages"]] == ["over stdio"]


def test_resources_are_those_of_the_client(env: dict[str, str], tmp_path: Path) -> None:
    with by_hand(env, tmp_path, "--agent-id", "alice") as process:
        send(process, INITIALIZE, INITIALIZED)
        receive(process)
        use(process, "set_memory", key="mine", value=1)
        listed = ask(process, "resources/read", uri="agent://alice/memory")
    assert '"key":"mine"' in listed["contents"][0]["text"]


def test_stdout_carries_the_protocol_only(env: dict[str, str], tmp_path: Path) -> None:
    with executed(env | {"SCS_LOG_LEVEL": "DEBUG"}, tmp_path) as process:
        send(process, INITIALIZE, INITIALIZED, CREATE_SESSION)
        assert receive(process)["result"]["serverInfo"]["name"] == "shared-context-server"
        assert receive(process)["result"]["structuredContent"]["created_by"] == "by-hand"
        rest, errors = process.communicate(timeout=STOP_S)
    assert rest == ""
    assert process.returncode == 0
    assert "Traceback" not in errors


@pytest.mark.usefixtures("hangup_counts")
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_while_it_waits_for_input(
    env: dict[str, str], tmp_path: Path, sig: signal.Signals
) -> None:
    with by_hand(env, tmp_path) as process:
        send(process, INITIALIZE)
        receive(process)
        process.send_signal(sig)
        assert process.wait(STOP_S) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_a_client_that_went_away_leaves_no_traceback(env: dict[str, str], tmp_path: Path) -> None:
    with by_hand(env, tmp_path) as process:
        send(process, INITIALIZE, INITIALIZED)
        receive(process)
        assert process.stdout is not None
        process.stdout.close()
        send(process, CREATE_SESSION)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(STOP_S) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_input_larger_than_a_pipe_arrives_whole(env: dict[str, str], tmp_path: Path) -> None:
    purpose = CREATE_SESSION["params"]["arguments"] | {"metadata": {"text": "ä" * 30_000}}  # type: ignore[index]
    big = CREATE_SESSION | {"params": {"name": "create_session", "arguments": purpose}}
    with by_hand(env, tmp_path) as process:
        send(process, INITIALIZE, INITIALIZED, big)
        receive(process)
        assert receive(process)["result"]["structuredContent"]["success"] is True


def test_empty_input_is_an_end_like_any_other(scs: Run) -> None:
    answer = scs(*STDIO)
    assert answer.returncode == 0
    assert answer.stdout == ""


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["--agent-id", "two\nlines"], "--agent-id"),
        (["--agent-id", "ali\u200bce"], "--agent-id"),
        (["--agent-type", "\uff41"], "--agent-type"),
        (["--reload"], "--reload"),
    ],
)
def test_what_makes_no_sense_is_refused(scs: Run, arguments: list[str], named: str) -> None:
    answer = scs(*STDIO, *arguments)
    assert answer.returncode == 2
    assert named in answer.stderr
    assert "Traceback" not in answer.stderr


LONG = 1_048_576  # MAX_BODY_BYTES
PING = '{"jsonrpc": "2.0", "id": 9, "method": "ping"}'


WRONG = [
    (b"this is no JSON", -32700, None),
    (b"\xff\xfe", -32700, None),
    (b"\xef\xbb\xbf" + PING.encode(), -32700, 9),
    (rb'{"jsonrpc": "2.0", "id": 5, "method": "ping", "params": {"a": "\ud800"}}', -32700, 5),
    (rb'{"jsonrpc": "2.0", "id": "\ud800", "method": "ping"}', -32700, None),
    (b'{"jsonrpc": "2.0", "id": 5, "method": "ping", "params": {"a": NaN}}', -32700, 5),
    (f"[{PING}]".encode(), -32600, None),
    (b'{"jsonrpc": "2.0", "id": null, "method": "ping"}', -32600, None),
    (b'{"jsonrpc": "2.0", "id": 5, "method": 7}', -32600, 5),
    (b'{"jsonrpc": "2.0", "id": 5, "error": "what"}', -32600, None),
    (b"[" * 40_000, -32700, None),
    (b'{"a": "' + b"x" * LONG + b'"}', -32600, None),
    (b'{"a": "' + b"x" * 5 * LONG + b'"}', -32600, None),
]
"""Lines, and the code and the id that each is answered with."""


def test_a_line_that_is_no_message_is_answered_and_logged_and_the_server_lives_on(
    env: dict[str, str], tmp_path: Path
) -> None:
    with by_hand(env, tmp_path) as process:
        send(process, INITIALIZE, INITIALIZED)
        receive(process)
        for line, code, message_id in WRONG:
            process.stdin.buffer.write(line + b"\n")
            process.stdin.buffer.flush()
            refused = receive(process)
            assert (refused["id"], refused["error"]["code"]) == (message_id, code), line[:40]
            assert use(process, "create_session", purpose="lives on")["success"] is True
        process.stdin.close()
        assert process.wait(STOP_S) == 0
        errors = process.stderr.read()
    logged = [line for line in errors.splitlines() if "a line of stdin is no message" in line]
    assert len(logged) == len(WRONG)
    for line, (_, code, _) in zip(logged, WRONG, strict=True):
        assert str(code) in line
    assert "Traceback" not in errors


def test_blank_lines_are_no_fault(env: dict[str, str], tmp_path: Path) -> None:
    with by_hand(env, tmp_path) as process:
        send(process, INITIALIZE, INITIALIZED)
        receive(process)
        assert process.stdin is not None
        process.stdin.write("\r\n \n" + PING + "\r\n")
        process.stdin.flush()
        assert receive(process) == {"jsonrpc": "2.0", "id": 9, "result": {}}
        process.stdin.close()
        assert process.wait(STOP_S) == 0
        assert process.stderr is not None
        assert "no message" not in process.stderr.read()
