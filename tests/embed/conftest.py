"""Real servers behind adapters, and messages for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from shared_context_server.embed import McpServerAdapter, create_sdk_server
from shared_context_server.settings import Settings
from tests.surfaces.conftest import Answer

PATIENCE_S = 30
MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def request(message_id: int | str, method: str, /, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": message_id, "method": method, "params": params}


def tool_call(
    tool: str, arguments: dict[str, Any] | None = None, *, message_id: int | str = 1
) -> dict[str, Any]:
    return request(message_id, "tools/call", name=tool, arguments=arguments or {})


def initialize(message_id: int | str = 0) -> dict[str, Any]:
    return request(
        message_id,
        "initialize",
        protocolVersion="2025-06-18",
        capabilities={},
        clientInfo={"name": "test", "version": "1"},
    )


class EmbeddedSurface:
    """An embedded server as a way to call tools, like the other surfaces."""

    def __init__(self, adapter: McpServerAdapter) -> None:
        self.adapter = adapter
        self._last_id = 0

    async def call(self, tool: str, /, **arguments: Any) -> Answer:
        self._last_id += 1
        message = tool_call(tool, arguments, message_id=self._last_id)
        answer = await self.adapter.handle_message(message)
        assert answer is not None
        result = answer["result"]
        return Answer(result["isError"], result["structuredContent"])


Embed = Callable[..., Awaitable[EmbeddedSurface]]


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the environment's settings nor an .env of the working directory."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(f"SCS_{name.upper()}", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def embed(data_dir: Path) -> AsyncIterator[Embed]:
    """`await embed("alice")` is a server of its own on the test's data dir, whose calls are hers."""
    async with AsyncExitStack() as stack:

        async def start(agent_id: str, **options: Any) -> EmbeddedSurface:
            entry = create_sdk_server(agent_id=agent_id, data_dir=data_dir, **options)
            adapter = await stack.enter_async_context(McpServerAdapter(entry))
            return EmbeddedSurface(adapter)

        yield start
