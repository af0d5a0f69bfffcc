"""autogen-ext's MCP client against the MCP endpoint."""

from __future__ import annotations

import json
from typing import Any

import pytest
from autogen_ext.tools.mcp import McpWorkbench, StreamableHttpServerParams


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
async def test_nobody_connects_with_a_wrong_credential(
    server: Any, headers: dict[str, str], causes: Any
) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with connect(server, headers) as workbench:
            await workbench.list_tools()
    assert "401 Unauthorized" in causes(caught.value)


def test_the_example_of_the_page_works(
    run_example: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example("autogen-mcp")
    assert "add_message" in capsys.readouterr().out
