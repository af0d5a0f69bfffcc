"""A server process under load: nothing refused, nothing leaked, nothing acknowledged lost."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport

from tests.cli.conftest import Serve, ServerProcess

AGENTS = 20


def headers_of(server: ServerProcess, agent_id: str) -> dict[str, str]:
    return {"X-API-Key": server.secrets["API_KEY"], "X-Agent-ID": agent_id}


@asynccontextmanager
async def http_of(server: ServerProcess, agent_id: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = headers_of(server, agent_id)
    limits = httpx.Limits(max_connections=50)
    async with httpx.AsyncClient(
        base_url=server.url, headers=headers, limits=limits, timeout=60
    ) as client:
        yield client


async def call(client: httpx.AsyncClient, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await client.post(f"/mcp/tool/{tool}", json=arguments)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def read_all(client: httpx.AsyncClient, session_id: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    after_seq, has_more = 0, True
    while has_more:
        page = await call(
            client, "get_messages", session_id=session_id, after_seq=after_seq, limit=1000
        )
        messages += page["messages"]
        after_seq, has_more = page["next_after_seq"], page["has_more"]
    return messages


async def test_two_hundred_parallel_writes_all_succeed_without_a_gap(serve: Serve) -> None:
    with serve() as server:
        async with http_of(server, "alice") as client:
            session_id = (await call(client, "create_session", purpose="load"))["session_id"]
            added = await asyncio.gather(
                *(
                    call(client, "add_message", session_id=session_id, content=f"m{number}")
                    for number in range(200)
                )
            )
            assert sorted(answer["seq"] for answer in added) == list(range(1, 201))
            messages = await read_all(client, session_id)
            assert [m["seq"] for m in messages] == list(range(1, 201))
            assert {m["content"] for m in messages} == {f"m{number}" for number in range(200)}


def open_descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to count descriptors")
async def test_a_thousand_calls_fit_in_256_descriptors_and_leave_none_behind(
    serve: Serve,
) -> None:
    with serve() as server:
        pid = server.process.pid
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (256, 256))
        async with http_of(server, "alice") as client:
            session_id = (await call(client, "create_session", purpose="load"))["session_id"]

            async def one(number: int) -> None:
                tool = ("add_message", "get_messages", "search_context", "list_sessions")[
                    number % 4
                ]
                arguments: dict[str, Any] = (
                    {} if tool == "list_sessions" else {"session_id": session_id}
                )
                if tool == "add_message":
                    arguments["content"] = f"message {number}"
                if tool == "search_context":
                    arguments["query"] = "message"
                await call(client, tool, **arguments)

            await asyncio.gather(*(one(number) for number in range(200)))
            before = open_descriptors(pid)
            for _ in range(3):
                await asyncio.gather(*(one(number) for number in range(200)))
        transport = StreamableHttpTransport(f"{server.url}/mcp", headers=headers_of(server, "bob"))
        async with Client(transport) as mcp:
            for number in range(200):
                content = {"session_id": session_id, "content": f"over MCP {number}"}
                assert not (await mcp.call_tool("add_message", content)).is_error
        assert open_descriptors(pid) <= before


async def write_until_killed(
    server: ServerProcess,
    session_id: str,
    agent: int,
    acknowledged: list[str],
    are_enough: asyncio.Event,
) -> None:
    async with http_of(server, f"agent-{agent}") as client:
        for number in range(100_000):
            content = f"{agent}/{number}"
            try:
                answer = await client.post(
                    "/mcp/tool/add_message",
                    json={
                        "session_id": session_id,
                        "content": content,
                        "idempotency_key": content,
                    },
                )
            except httpx.TransportError:
                return
            assert answer.status_code == 200, answer.text
            acknowledged.append(content)
            if len(acknowledged) >= 500:
                are_enough.set()


async def test_what_was_acknowledged_before_a_kill_is_there_after_it_once(serve: Serve) -> None:
    with serve() as server:
        async with http_of(server, "alice") as client:
            session_id = (await call(client, "create_session", purpose="crash"))["session_id"]
        acknowledged: list[str] = []
        are_enough = asyncio.Event()
        writers = [
            asyncio.create_task(
                write_until_killed(server, session_id, agent, acknowledged, are_enough)
            )
            for agent in range(AGENTS)
        ]
        async with asyncio.timeout(30):
            await are_enough.wait()
        server.process.send_signal(signal.SIGKILL)
        await asyncio.gather(*writers)
    database = server.data_dir / "shared_context.db"
    with serve() as server:
        async with http_of(server, "alice") as client:
            messages = await read_all(client, session_id)
            contents = [m["content"] for m in messages]
            assert len(set(contents)) == len(contents)
            assert set(acknowledged) <= set(contents)
            assert [m["seq"] for m in messages] == list(range(1, len(messages) + 1))
            again = await call(client, "add_message", session_id=session_id, content="after")
            assert again["seq"] == len(messages) + 1
        async with http_of(server, "agent-0") as client:
            retried = await call(
                client,
                "add_message",
                session_id=session_id,
                content="0/0",
                idempotency_key="0/0",
            )
            assert retried["duplicate"] is True
    connection = sqlite3.connect(database)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        connection.close()
