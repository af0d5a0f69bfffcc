"""create_sdk_server: the whole server in the agent's process, opened late, and only as that agent."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from mcp.server.lowlevel import Server

from shared_context_server.embed import McpServerAdapter, create_sdk_server
from shared_context_server.errors import ConfigurationError
from shared_context_server.tools.catalog import TOOLS
from tests.embed.conftest import (
    PATIENCE_S,
    Embed,
    EmbeddedSurface,
    initialize,
    request,
    tool_call,
)
from tests.settings import API_KEY, KEYS, make_settings
from tests.surfaces.conftest import RestSurface, headers_of, serve
from tests.until import until


async def new_session(surface: EmbeddedSurface, **arguments: Any) -> str:
    created = await surface.call("create_session", purpose="test", **arguments)
    session_id: str = created["session_id"]
    return session_id


def test_the_entry_is_what_the_sdk_takes(data_dir: Path) -> None:
    entry = create_sdk_server("hub", agent_id="alice", data_dir=data_dir)
    assert (entry["type"], entry["name"]) == ("sdk", "hub")
    assert isinstance(entry["instance"], Server)


async def test_nothing_is_opened_before_the_sdk_starts_it(data_dir: Path) -> None:
    entry = create_sdk_server("hub", agent_id="alice", data_dir=data_dir)
    assert not data_dir.exists()
    async with McpServerAdapter(entry) as adapter:
        hello = await adapter.handle_message(initialize())
        assert hello is not None
        assert hello["result"]["serverInfo"]["name"] == "hub"
        assert "create_session" in hello["result"]["instructions"]
        assert hello["result"]["capabilities"]["resources"] is not None
        listed = await adapter.handle_message(request(1, "tools/list"))
        assert listed is not None
        assert [tool["name"] for tool in listed["result"]["tools"]] == [t.name for t in TOOLS]
    assert (data_dir / "shared_context.db").exists()


def test_the_host_s_own_variables_and_dotenv_are_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    theirs = {"LOG_LEVEL": "loud", "API_KEY": "short", "DATABASE_URL": "mysql://app"}
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".env").write_bytes(b"WORKERS=caf\xe9\n")
    create_sdk_server(agent_id="alice")
    monkeypatch.setenv("SCS_LOG_LEVEL", "loud")
    with pytest.raises(ConfigurationError, match="SCS_LOG_LEVEL in the environment"):
        create_sdk_server(agent_id="alice")


class FastMCPCalls(Middleware):
    """The tools whose calls FastMCP gets."""

    def __init__(self) -> None:
        self.tools: list[str] = []

    async def on_call_tool(
        self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]
    ) -> Any:
        self.tools.append(context.message.name)
        return await call_next(context)


async def test_only_calls_that_wait_go_through_fastmcp(data_dir: Path) -> None:
    entry = create_sdk_server(agent_id="alice", data_dir=data_dir)
    calls = FastMCPCalls()
    async with entry["instance"].open() as low_level:  # type: ignore[attr-defined]
        low_level.fastmcp.add_middleware(calls)
        async with McpServerAdapter(low_level) as adapter:
            surface = EmbeddedSurface(adapter)
            session_id = await new_session(surface)
            await surface.call("add_message", session_id=session_id, content="x")
            await surface.call("wait_for_messages", session_id=session_id, timeout_seconds=0)
    assert calls.tools == ["wait_for_messages"]


TRACED = """
import asyncio, json, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from shared_context_server.embed import McpServerAdapter, create_sdk_server

SENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

async def main():
    async with McpServerAdapter(create_sdk_server(agent_id="a", data_dir=sys.argv[1])) as adapter:
        spans = InMemorySpanExporter()
        provider = TracerProvider()  # set after the server was opened
        provider.add_span_processor(SimpleSpanProcessor(spans))
        trace.set_tracer_provider(provider)
        tracer = provider.get_tracer("host")

        async def call(tool, arguments, **meta):
            params = {"name": tool, "arguments": arguments, "_meta": meta}
            message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
            await adapter.handle_message(message)

        place = {"session_id": "session_0123456789abcdef"}
        with tracer.start_as_current_span("host"):
            for tool, arguments in ("list_sessions", {}), ("wait_for_messages", place):
                await call(tool, arguments)
                await call(tool, arguments, traceparent=SENT)
        for span in spans.get_finished_spans():
            if span.name == "initialize":
                continue  # FastMCP's
            links = [f"{link.context.span_id:016x}" for link in span.links]
            parent = span.parent and f"{span.parent.span_id:016x}"
            print(json.dumps([span.name, f"{span.context.span_id:016x}", parent, links]))

asyncio.run(main())
"""


def test_a_host_that_records_traces_sees_each_call_once(data_dir: Path) -> None:
    # In a process of its own: the provider cannot be taken back.
    traced = subprocess.run(
        [sys.executable, "-c", TRACED, str(data_dir)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert traced.returncode == 0, traced.stderr
    *calls, (_, host, _, _) = map(json.loads, traced.stdout.splitlines())
    sent = "b7ad6b7169203331"
    # wait_for_messages goes through FastMCP, which would make spans of its own.
    assert [[name, parent, links] for name, _, parent, links in calls] == [
        ["tools/call list_sessions", host, []],
        ["tools/call list_sessions", sent, [host]],
        ["tools/call wait_for_messages", host, []],
        ["tools/call wait_for_messages", sent, [host]],
    ]


def list_running() -> tuple[int, list[str]]:
    """The tasks, and the threads but for those that the loop's own pool keeps."""
    names = [thread.name for thread in threading.enumerate()]
    return len(asyncio.all_tasks()), [n for n in names if not n.startswith("asyncio_")]


async def test_closing_leaves_nothing_running_and_it_opens_again(data_dir: Path) -> None:
    entry = create_sdk_server(agent_id="alice", data_dir=data_dir)
    before = list_running()
    for n in (1, 2, 3):
        async with McpServerAdapter(entry) as adapter:
            surface = EmbeddedSurface(adapter)
            await new_session(surface)
            assert len((await surface.call("list_sessions"))["sessions"]) == n
        await until(lambda: list_running() == before)


async def test_every_call_is_by_the_agent_it_was_made_for(embed: Embed) -> None:
    alice = await embed("alice", agent_type="reviewer")
    session_id = await new_session(alice)
    await alice.call("add_message", session_id=session_id, content="hi")
    [message] = (await alice.call("get_messages", session_id=session_id))["messages"]
    assert (message["sender"], message["sender_type"]) == ("alice", "reviewer")


async def test_a_private_message_of_others_is_not_seen(embed: Embed) -> None:
    alice, bob, carol = [await embed(name) for name in ("alice", "bob", "carol")]
    session_id = await new_session(alice)
    secret = {"content": "for bob", "visibility": "private", "recipients": ["bob"]}
    await alice.call("add_message", session_id=session_id, **secret)
    counts = [
        (await agent.call("get_messages", session_id=session_id))["count"]
        for agent in (alice, bob, carol)
    ]
    assert counts == [1, 1, 0]


async def test_a_reader_cannot_write_nor_get_a_token_that_can(embed: Embed) -> None:
    alice, reader = await embed("alice"), await embed("reader", permissions=("read",))
    session_id = await new_session(alice)
    assert (await reader.call("get_messages", session_id=session_id))["count"] == 0
    message = {"session_id": session_id, "content": "x"}
    assert (await reader.call("add_message", **message))["code"] == "PERMISSION_DENIED"
    granted = await reader.call(
        "authenticate_agent", agent_id="reader", requested_permissions=["read", "write", "admin"]
    )
    assert granted["permissions"] == ["read"]
    as_reader = await reader.call("add_message", auth_token=granted["token"], **message)
    assert as_reader["code"] == "PERMISSION_DENIED"
    renewed = await reader.call("refresh_token")
    assert renewed["permissions"] == ["read"]


async def test_an_agent_cannot_become_another_nor_an_admin(embed: Embed) -> None:
    alice = await embed("alice")
    assert (await alice.call("authenticate_agent", agent_id="bob"))["code"] == "PERMISSION_DENIED"
    assert (await alice.call("get_audit_log"))["code"] == "PERMISSION_DENIED"
    admin = await embed("root", permissions=("read", "write", "admin"))
    assert (await admin.call("get_audit_log"))["success"] is True


async def test_servers_on_one_data_dir_see_and_wake_each_other(embed: Embed) -> None:
    alice, bob = await embed("alice"), await embed("bob")
    session_id = await new_session(alice)
    async with asyncio.timeout(PATIENCE_S):
        waiting = asyncio.create_task(
            bob.call("wait_for_messages", session_id=session_id, timeout_seconds=2 * PATIENCE_S)
        )
        # A call that was made after it and is answered: the waiting one is under way.
        assert (await bob.call("get_messages", session_id=session_id))["count"] == 0
        await alice.call("add_message", session_id=session_id, content="news")
        woken = await waiting
    assert [message["content"] for message in woken["messages"]] == ["news"]
    assert woken["timed_out"] is False


async def test_a_server_over_http_and_an_embedded_one_share_a_session(
    embed: Embed, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, key in KEYS.items():
        monkeypatch.setenv(f"SCS_{name.upper()}", key)
    async with asyncio.timeout(PATIENCE_S), serve(make_settings(data_dir)) as (_, url):
        alice = await embed("alice")
        session_id = await new_session(alice)
        async with RestSurface(url, headers_of("bob", api_key=API_KEY)) as bob:
            waiting = asyncio.create_task(
                bob.call("wait_for_messages", session_id=session_id, timeout_seconds=60)
            )
            assert (await bob.call("get_messages", session_id=session_id))["count"] == 0
            await alice.call("add_message", session_id=session_id, content="from inside")
            assert [m["content"] for m in (await waiting)["messages"]] == ["from inside"]


async def test_closing_ends_a_call_that_waits(embed: Embed) -> None:
    alice = await embed("alice")
    session_id = await new_session(alice)
    wait = tool_call(
        "wait_for_messages", {"session_id": session_id, "timeout_seconds": 100}, message_id="w"
    )
    waiting = asyncio.create_task(alice.adapter.handle_message(wait))
    await alice.call("get_time")
    async with asyncio.timeout(PATIENCE_S):
        await alice.adapter.close()
        assert "error" in (await waiting or {})


async def test_fifty_writes_at_once_are_fifty_messages(embed: Embed) -> None:
    alice = await embed("alice")
    session_id = await new_session(alice)
    writes = [alice.call("add_message", session_id=session_id, content=str(n)) for n in range(50)]
    assert sorted(w["seq"] for w in await asyncio.gather(*writes)) == list(range(1, 51))


async def test_a_database_may_be_named_by_its_url(tmp_path: Path, data_dir: Path) -> None:
    database = tmp_path / "elsewhere.db"
    entry = create_sdk_server(
        agent_id="alice", data_dir=data_dir, database_url=f"sqlite:///{database}"
    )
    async with McpServerAdapter(entry) as adapter:
        await new_session(EmbeddedSurface(adapter))
    assert database.exists()


@pytest.mark.parametrize(
    "options, named",
    [
        ({"agent_id": ""}, "agent_id"),
        ({"agent_id": "two\nlines"}, "agent_id"),
        ({"agent_id": "a", "agent_type": ""}, "agent_type"),
        ({"agent_id": "a", "permissions": ("fly",)}, "permissions"),
        ({"agent_id": "a", "permissions": ()}, "permissions"),
        ({"agent_id": "a", "permissions": "read"}, "permissions"),
    ],
)
def test_what_no_agent_can_be_is_refused_when_the_server_is_made(
    data_dir: Path, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        create_sdk_server(data_dir=data_dir, **options)


@pytest.mark.parametrize("field", ["agent_id", "agent_type"])
async def test_a_name_that_could_pass_for_another_is_told_to_who_calls(
    data_dir: Path, field: str
) -> None:
    entry = create_sdk_server(**{"agent_id": "alice", field: "ali\u200bce"}, data_dir=data_dir)
    async with asyncio.timeout(PATIENCE_S), McpServerAdapter(entry) as adapter:
        answer = await adapter.handle_message(initialize())
        assert answer is not None
        assert f"{field}: must not have a format character" in answer["error"]["message"]


async def test_a_data_dir_that_cannot_be_used_is_told_to_who_calls(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    entry = create_sdk_server(agent_id="alice", data_dir=in_the_way)
    async with asyncio.timeout(PATIENCE_S), McpServerAdapter(entry) as adapter:
        answer = await adapter.handle_message(initialize())
        assert answer is not None
        assert str(in_the_way) in answer["error"]["message"]
