"""llama-index-tools-mcp against the MCP endpoint."""

from __future__ import annotations

import json
from typing import Any

from llama_index.core.tools import FunctionTool
from llama_index.tools.mcp import BasicMCPClient, McpToolSpec


async def load_tools(server: Any) -> dict[str, FunctionTool]:
    client = BasicMCPClient(server.mcp_url, headers=server.headers)
    tools = await McpToolSpec(client=client).to_tool_list_async()
    return {str(tool.metadata.name): tool for tool in tools}


async def call(tools: dict[str, FunctionTool], name: str, **arguments: Any) -> dict[str, Any]:
    output = await tools[name].acall(**arguments)
    answer: dict[str, Any] = json.loads(output.raw_output.content[0].text)
    return answer


async def test_all_tools_are_converted_and_write_and_search(server: Any) -> None:
    tools = await load_tools(server)
    for tool in tools.values():
        assert tool.metadata.to_openai_tool()["function"]["parameters"]["type"] == "object"
    session_id = (await call(tools, "create_session", purpose="By LlamaIndex"))["session_id"]
    await call(tools, "add_message", session_id=session_id, content="The tests are red.")
    found = await call(tools, "search_context", session_id=session_id, query="test red")
    assert found["results"][0]["message"]["content"] == "The tests are red."


async def test_any_json_is_stored_and_an_error_is_told(server: Any) -> None:
    tools = await load_tools(server)
    for value in ({"a": [1, "b"]}, [1, 2], ["x"], "text", 1.5, True):
        await call(tools, "set_memory", key="llama-index", value=value)
        assert (await call(tools, "get_memory", key="llama-index"))["value"] == value
    refused = await call(tools, "get_session", session_id="x")
    assert refused["code"] == "SESSION_NOT_FOUND"
