"""A whole server in this process, and HTTP clients that call it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared_context_server.server import Server, open_server
from tests.settings import ADMIN_API_KEY, API_KEY, make_settings

BASE_URL = "http://127.0.0.1:23456"

OpenClient = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def client_of(server: Server, **headers: str) -> httpx.AsyncClient:
    """A client that calls the server in this process, with these headers ("_" for "-")."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(server.app, raise_app_exceptions=False),
        base_url=BASE_URL,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with open_server(make_settings(tmp_path)) as server:
        yield server


@pytest.fixture
async def agent(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """worker-7, who may read and write."""
    async with client_of(server, X_API_Key=API_KEY, X_Agent_ID="worker-7") as client:
        yield client


@pytest.fixture
async def admin(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(server, X_API_Key=ADMIN_API_KEY, X_Agent_ID="the-admin") as client:
        yield client


@pytest.fixture
async def stranger(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody without a credential."""
    async with client_of(server) as client:
        yield client


@pytest.fixture
def open_agent(tmp_path: Path) -> OpenClient:
    """`async with open_agent(rate_limit=...)`: worker-7 on a server with other settings."""

    @asynccontextmanager
    async def open_client(**overrides: Any) -> AsyncIterator[httpx.AsyncClient]:
        async with (
            open_server(make_settings(tmp_path, **overrides)) as server,
            client_of(server, X_API_Key=API_KEY, X_Agent_ID="worker-7") as client,
        ):
            yield client

    return open_client


async def call(client: httpx.AsyncClient, tool: str, /, **arguments: Any) -> dict[str, Any]:
    """The answer of a call that has to succeed."""
    response = await client.post(f"/mcp/tool/{tool}", json=arguments)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def create_session(client: httpx.AsyncClient, **arguments: Any) -> str:
    answer = await call(client, "create_session", purpose="tests", **arguments)
    session_id: str = answer["session_id"]
    return session_id


def assert_error(
    response: httpx.Response, status: int, code: str, field: str | None = None
) -> dict[str, Any]:
    """That the response is this error in the one shape, which it returns; on /mcp it is the data of
    a JSON-RPC error."""
    body: dict[str, Any] = response.json()
    if "jsonrpc" in body:
        body = body["error"]["data"]
    assert response.headers["content-type"] == "application/json"
    assert set(body) == {"success", "error", "code", "details", "suggestion", "retryable"}
    assert (response.status_code, body["code"]) == (status, code), body
    assert body["success"] is False
    assert body["error"]
    assert body["suggestion"]
    assert body["details"].get("field") == field
    return body
