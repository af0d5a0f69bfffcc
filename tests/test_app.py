"""The FastMCP object of `shared_context_server.app`, opened by FastMCP's client and its command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastmcp import Client
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport
from mcp.shared.exceptions import MCPDeprecationWarning

from shared_context_server import app
from shared_context_server.about import TITLE
from shared_context_server.app import mcp
from shared_context_server.errors import ConfigurationError
from shared_context_server.services import follow
from shared_context_server.settings import Settings
from shared_context_server.tools.catalog import TOOLS
from tests.settings import API_KEY, KEYS
from tests.surfaces.conftest import listening

ERAS = ["2026-07-28", "legacy"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The data dir that the environment names; everything else has its default."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SCS_{name.upper()}", raising=False)
    for name, value in KEYS.items():
        monkeypatch.setenv(f"SCS_{name.upper()}", value)
    monkeypatch.setenv("SCS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


async def call(client: Client[Any], tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments, raise_on_error=False)
    assert result.structured_content is not None
    return result.structured_content


@pytest.mark.parametrize("mode", ERAS)
async def test_a_client_in_memory_is_the_local_user_and_finds_its_data_again(
    mode: Any, data_dir: Path
) -> None:
    assert not data_dir.exists(), "importing the module opened the store"
    async with Client(mcp, mode=mode) as client, Client(mcp, mode=mode) as other:
        assert [tool.name for tool in await client.list_tools()] == [tool.name for tool in TOOLS]
        if mode == "legacy":  # a client that pins the newer version asks for no description
            assert client.server_info is not None
            assert client.server_info.title == TITLE
        made = await call(client, "create_session", purpose="trial")
        session_id = made["session_id"]
        assert (await call(other, "add_message", session_id=session_id, content="hi"))["seq"] == 1
        read = await client.read_resource(f"session://{session_id}")
        assert "trial" in read[0].text  # type: ignore[union-attr]
    async with Client(mcp, mode=mode) as client:
        listed = await call(client, "list_sessions")
        assert [found["session_id"] for found in listed["sessions"]] == [session_id]
        assert listed["sessions"][0]["created_by"] == made["created_by"] != "anonymous"


async def test_the_environment_may_name_the_local_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCS_AGENT_ID", "alice")
    async with Client(mcp) as client:
        assert (await call(client, "create_session", purpose="x"))["created_by"] == "alice"


async def test_a_name_no_agent_may_have_keeps_the_server_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SCS_AGENT_ID", "x" * 300)
    with pytest.raises(ConfigurationError, match="SCS_AGENT_ID"):
        async with mcp._lifespan_manager():
            pytest.fail("it was opened")


async def test_fastmcp_s_inspector_lists_everything_without_starting_the_server() -> None:
    assert len(await mcp.list_tools()) == len(TOOLS)
    assert await mcp.list_resources()
    assert await mcp.list_resource_templates()
    assert await mcp.list_prompts()
    assert not mcp._started.is_set()


async def test_over_http_callers_need_a_credential() -> None:
    served = mcp.http_app()
    config = uvicorn.Config(served, log_config=None, ws="none", lifespan="on")
    async with listening(uvicorn.Server(config)) as url:
        for headers, created_by, code in (
            ({}, None, "UNAUTHENTICATED"),
            ({"X-API-Key": "no-key-of-this-server"}, None, "UNAUTHENTICATED"),
            ({"X-API-Key": API_KEY, "X-Agent-ID": "bob"}, "bob", None),
        ):
            transport = StreamableHttpTransport(f"{url}/mcp", headers=headers)
            async with Client(transport) as client:
                answer = await call(client, "create_session", purpose="x")
                assert (answer.get("created_by"), answer.get("code")) == (created_by, code)


@pytest.mark.parametrize(
    "mode, level", [("2026-07-28", None), ("legacy", "info"), ("legacy", "error"), ("legacy", None)]
)
async def test_a_waiting_call_sends_log_messages_to_clients_that_ask_for_them(
    mode: Any, level: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "PROGRESS_INTERVAL_S", 0.05)
    heard: list[Any] = []

    async def hear(message: Any) -> None:
        heard.append((message.level, message.logger, message.data["msg"]))

    async with Client(mcp, mode=mode, log_handler=hear) as client:
        if level is not None:  # from 2026-07-28 on FastMCP's client asks in each request
            with pytest.warns(MCPDeprecationWarning):
                await client.set_logging_level(level)
        session_id = (await call(client, "create_session", purpose="x"))["session_id"]
        await call(client, "wait_for_messages", session_id=session_id, timeout_seconds=0.2)
    if mode == "2026-07-28" or level == "info":
        assert heard[0][:2] == ("info", "shared_context_server")
        assert heard[0][2].startswith("wait_for_messages is waiting: ")
    else:
        assert heard == []


async def test_fastmcp_run_serves_it_over_stdio(tmp_path: Path) -> None:
    command = str(Path(sys.executable).with_name("fastmcp"))
    arguments = ["run", f"{app.__file__}:mcp", "--no-banner"]
    transport = StdioTransport(
        command, arguments, env={**os.environ, "SCS_DATABASE_URL": "sqlite:///:memory:"}
    )
    async with Client(transport) as client:
        assert (await call(client, "create_session", purpose="x"))["success"] is True
    assert not (tmp_path / "data" / "shared_context.db").exists()
