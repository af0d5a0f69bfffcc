"""langchain-mcp-adapters against the MCP endpoint."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_mcp_adapters.client import MultiServerMCPClient


def connect(server: Any, headers: dict[str, str]) -> MultiServerMCPClient:
    connection: Any = {"transport": "http", "url": server.mcp_url, "headers": headers}
    return MultiServerMCPClient({"shared-context": connection})


async def call(tools: dict[str, Any], name: str, **arguments: Any) -> dict[str, Any]:
    (content,) = await tools[name].ainvoke(arguments)
    answer: dict[str, Any] = json.loads(content["text"])
    return answer


async def test_it_lists_tools_writes_and_searches(server: Any) -> None:
    tools = {tool.name: tool for tool in await connect(server, server.headers).get_tools()}
    session_id = (await call(tools, "create_session", purpose="By MCP"))["session_id"]
    added = await call(tools, "add_message", session_id=session_id, content="The tests are red.")
    found = await call(tools, "search_context", session_id=session_id, query="test red")
    assert found["results"][0]["message"]["id"] == added["message_id"]


async def test_all_tools_become_strict_functions_of_openai(server: Any) -> None:
    for tool in await connect(server, server.headers).get_tools():
        function = convert_to_openai_tool(tool, strict=True)["function"]
        assert function["strict"] is True
        assert function["parameters"]["properties"].keys() == tool.args.keys()


async def test_a_refused_call_is_an_error_message_with_the_code(server: Any) -> None:
    tools = {tool.name: tool for tool in await connect(server, server.headers).get_tools()}
    call = {"name": "get_session", "args": {"session_id": "x"}, "id": "1", "type": "tool_call"}
    message = await tools["get_session"].ainvoke(call)
    assert message.status == "error"
    assert "SESSION_NOT_FOUND" in str(message.content)


@pytest.mark.parametrize("headers", [{"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}])
async def test_nobody_connects_with_a_wrong_credential(
    server: Any, headers: dict[str, str], causes: Any
) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        await connect(server, headers).get_tools()
    assert "401" in causes(caught.value)


def test_the_example_of_the_page_works(
    run_example: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example("langchain-mcp-adapters")
    assert "add_message" in capsys.readouterr().out
