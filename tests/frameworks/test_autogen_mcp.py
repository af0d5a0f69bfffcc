"""autogen-ext's MCP client against the MCP endpoint."""

from __future__ import annotations

import json
from typing import Any

import pytest
from autogen_core.tools import StaticWorkbench
from autogen_ext.tools.mcp import (
    McpWorkbench,
    StreamableHttpMcpToolAdapter,
    StreamableHttpServerParams,
)


def connect(server: Any, headers: dict[str, str]) -> McpWorkbench:
    return McpWorkbench(StreamableHttpServerParams(url=server.mcp_url, headers=headers))


async def call(workbench: McpWorkbench, name: str, **arguments: Any) -> dict[str, Any]:
    result = await workbench.call_tool(name, arguments)
    assert not result.is_error, result.to_text()
    answer: dict[str, Any] = json.loads(result.to_text())
    return answer


async def test_it_lists_tools_writes_and_searches(server: Any) -> None:
    async with connect(server, server.headers) as workbench:
        names = {tool["name"] for tool in await workbench.list_tools()}
        assert {"create_session", "add_message", "search_context"} <= names
        session_id = (await call(workbench, "create_session", purpose="By MCP"))["session_id"]
        content = "The tests are red."
        added = await call(workbench, "add_message", session_id=session_id, content=content)
        found = await call(workbench, "search_context", session_id=session_id, query="test red")
    assert found["results"][0]["message"]["id"] == added["message_id"]


@pytest.mark.parametrize("headers", [{"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}])
async def test_calls_with_a_wrong_credential_are_refused(
    server: Any, headers: dict[str, str]
) -> None:
    """By one tool at a time: McpWorkbench of 0.7.5 never returns when the server answers 401.
    StaticWorkbench is what AssistantAgent runs its tools with."""
    params = StreamableHttpServerParams(url=server.mcp_url, headers=headers)
    tool = await StreamableHttpMcpToolAdapter.from_server_params(params, "list_sessions")
    refused = await StaticWorkbench([tool]).call_tool("list_sessions", {})
    assert refused.is_error
    assert "401" in refused.to_text()


def test_the_example_of_the_page_works(
    run_example: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example("autogen-mcp")
    assert "add_message" in capsys.readouterr().out
