"""A server with open streams ends when it is told to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from tests.cli.conftest import PATIENCE_S, Serve

STREAMS = 100
PROMISED_S = 2.0
SLOW_MACHINE = 4.0  # factor


@asynccontextmanager
async def listen(http: httpx2.AsyncClient, session_id: str) -> AsyncIterator[None]:
    transport = streamable_http_client(f"{str(http.base_url).rstrip('/')}/mcp", http_client=http)
    async with (
        Client(transport, mode="2026-07-28") as client,
        client.listen(resource_subscriptions=[f"session://{session_id}"]),
    ):
        yield


@asynccontextmanager
async def subscribe(http: httpx2.AsyncClient, session_id: str) -> AsyncIterator[None]:
    transport = streamable_http_client(f"{str(http.base_url).rstrip('/')}/mcp", http_client=http)
    async with Client(transport, mode="legacy") as client:
        await client.subscribe_resource(f"session://{session_id}")
        yield


@asynccontextmanager
async def follow(http: httpx2.AsyncClient, session_id: str) -> AsyncIterator[None]:
    async with http.stream("GET", "/events", params={"session_id": session_id}) as response:
        assert response.status_code == 200
        yield


Open = Callable[[httpx2.AsyncClient, str], AbstractAsyncContextManager[None]]


@pytest.mark.filterwarnings("ignore:resources/subscribe is removed")
@pytest.mark.parametrize(
    "open_stream", [listen, subscribe, follow], ids=["modern", "legacy", "events"]
)
async def test_a_server_with_100_open_streams_ends_soon(serve: Serve, open_stream: Open) -> None:
    with serve(MCP_SESSIONS="stateful" if open_stream is subscribe else "stateless") as server:
        headers = {"X-API-Key": server.secrets["API_KEY"], "X-Agent-ID": "alice"}
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(
                httpx2.AsyncClient(
                    base_url=server.url,
                    headers=headers,
                    timeout=PATIENCE_S,
                    limits=httpx2.Limits(max_connections=None),
                )
            )
            created = await http.post("/mcp/tool/create_session", json={"purpose": "x"})
            for _ in range(STREAMS):
                await stack.enter_async_context(open_stream(http, created.json()["session_id"]))
            started = time.monotonic()
            assert await asyncio.to_thread(server.stop) == 0
            took_s = time.monotonic() - started
            print(f"ended after {took_s:.2f} s")
            assert took_s < PROMISED_S * SLOW_MACHINE


async def test_a_stream_of_one_process_tells_what_is_written_in_another(serve: Serve) -> None:
    with serve() as here, serve() as there:
        headers = {"X-API-Key": here.secrets["API_KEY"]}
        options: dict[str, Any] = {"headers": headers, "timeout": PATIENCE_S}
        async with (
            httpx2.AsyncClient(base_url=here.url, **options) as reader,
            httpx2.AsyncClient(base_url=there.url, **options) as writer,
            reader.stream("GET", "/events", headers={"X-Agent-ID": "bob"}) as response,
        ):
            writer.headers["X-Agent-ID"] = "alice"
            created = await writer.post("/mcp/tool/create_session", json={"purpose": "x"})
            message = {"session_id": created.json()["session_id"], "content": "hello"}
            assert (await writer.post("/mcp/tool/add_message", json=message)).status_code == 200
            await writer.post("/mcp/tool/list_agents")  # presence is written down for it
            expected = {"event: session_created", "event: message", 'data: {"agent_id":"alice"}'}
            async with asyncio.timeout(PATIENCE_S):
                async for line in response.aiter_lines():
                    expected.discard(line)
                    if not expected:
                        break
