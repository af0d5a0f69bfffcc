"""What makes the tools' schemas strict, for OpenAI's structured function calls."""

from __future__ import annotations

import copy
from typing import Any

from agents.mcp import MCPServerStreamableHttp, MCPUtil
from agents.strict_schema import ensure_strict_json_schema
from openai.lib._pydantic import _ensure_strict_json_schema


async def list_tools(server: Any) -> list[Any]:
    params = {"url": server.mcp_url, "headers": server.headers}
    async with MCPServerStreamableHttp(params) as connected:
        return list(await connected.list_tools())


async def test_all_schemas_can_be_made_strict(server: Any) -> None:
    for tool in await list_tools(server):
        schema = tool.input_schema
        for strict in (
            ensure_strict_json_schema(copy.deepcopy(schema)),
            _ensure_strict_json_schema(copy.deepcopy(schema), path=(), root=schema),
        ):
            assert strict["additionalProperties"] is False
            assert strict["required"] == list(schema["properties"])


async def test_an_agent_that_asks_for_strict_schemas_gets_all_tools(server: Any) -> None:
    params = {"url": server.mcp_url, "headers": server.headers}
    async with MCPServerStreamableHttp(params) as connected:
        tools = [
            MCPUtil.to_function_tool(tool, connected, convert_schemas_to_strict=True)
            for tool in await connected.list_tools()
        ]
    assert {"add_message", "set_memory", "get_time"} <= {tool.name for tool in tools}


async def test_a_strict_model_s_empty_texts_count_as_missing(server: Any) -> None:
    """A strict schema requires every argument, and a model without a value sends an empty text."""
    params = {"url": server.mcp_url, "headers": server.headers}
    async with MCPServerStreamableHttp(params) as connected:
        schemas = {tool.name: tool.input_schema for tool in await connected.list_tools()}
        arguments = dict.fromkeys(schemas["create_session"]["properties"], "") | {"purpose": "p"}
        answer = await connected.call_tool("create_session", arguments)
    assert not answer.is_error, answer
