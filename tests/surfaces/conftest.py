"""One server on a real port, and the same calls through each surface."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
import uvicorn
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport

from shared_context_server.observability.traces import Traces
from shared_context_server.server import Server, open_server
from shared_context_server.settings import Settings
from tests.settings import API_KEY, make_settings


@asynccontextmanager
async def serve(
    settings: Settings, traces: Traces | None = None
) -> AsyncIterator[tuple[Server, str]]:
    """The server under uvicorn on a free port of 127.0.0.1, and its base URL."""
    async with open_server(settings, traces=traces) as server:
        config = uvicorn.Config(server.app, log_config=None, lifespan="off", ws="none")
        async with listening(uvicorn.Server(config)) as url:
            yield server, url


@asynccontextmanager
async def listening(runner: uvicorn.Server) -> AsyncIterator[str]:
    """Run it on a free port of 127.0.0.1; the base URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        # The listener takes connections from here on; they wait for the server to accept them.
        task = asyncio.create_task(runner.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            runner.should_exit = True
            await task


@dataclass(frozen=True)
class Answer:
    is_error: bool
    body: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.body[name]


class Surface(Protocol):
    """A way to call tools as somebody."""

    async def call(self, tool: str, /, **arguments: Any) -> Answer: ...


class RestSurface:
    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._client = httpx.AsyncClient(base_url=url, headers=headers, timeout=30)

    async def __aenter__(self) -> RestSurface:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.aclose()

    async def call(self, tool: str, /, **arguments: Any) -> Answer:
        response = await self._client.post(f"/mcp/tool/{tool}", json=arguments)
        return Answer(response.status_code >= 400, response.json())


class McpSurface:
    def __init__(self, url: str, headers: dict[str, str], mode: str) -> None:
        transport = StreamableHttpTransport(f"{url}/mcp", headers=headers)
        self._client = Client(transport, mode=mode)  # type: ignore[arg-type]

    async def __aenter__(self) -> McpSurface:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.__aexit__(None, None, None)

    async def call(self, tool: str, /, **arguments: Any) -> Answer:
        result = await self._client.call_tool(tool, arguments, raise_on_error=False)
        assert result.structured_content is not None
        return Answer(result.is_error, result.structured_content)


SURFACES = ("rest", "mcp-2026-07-28", "mcp-legacy")


def open_surface(kind: str, url: str, headers: dict[str, str]) -> RestSurface | McpSurface:
    if kind == "rest":
        return RestSurface(url, headers)
    return McpSurface(url, headers, "legacy" if kind == "mcp-legacy" else "2026-07-28")


def headers_of(
    agent_id: str, *, api_key: str = API_KEY, agent_type: str | None = None
) -> dict[str, str]:
    named = {"X-API-Key": api_key, "X-Agent-ID": agent_id}
    return named if agent_type is None else named | {"X-Agent-Type": agent_type}


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[tuple[Server, str]]:
    async with serve(make_settings(tmp_path / "data")) as started:
        yield started


@pytest.fixture
def server(running: tuple[Server, str]) -> Server:
    return running[0]


@pytest.fixture
def url(running: tuple[Server, str]) -> str:
    return running[1]


As = Callable[..., Any]


# What follows a tool's call is the same for each of them, and covered by the first.
UNTRACED = [pytest.param(kind, marks=pytest.mark.no_cover) for kind in SURFACES[1:]]


@pytest.fixture(params=[SURFACES[0], *UNTRACED])
async def as_agent(request: pytest.FixtureRequest, url: str) -> AsyncIterator[As]:
    """`await as_agent("alice")` is a surface on which alice calls; once for each kind of surface."""
    async with AsyncExitStack() as stack:

        async def connect(agent_id: str | None, **named: str) -> Surface:
            headers = {} if agent_id is None else headers_of(agent_id, **named)
            surface = open_surface(request.param, url, headers)
            return await stack.enter_async_context(surface)

        yield connect
