"""google-genai's conversion of MCP tools into declarations for Gemini."""

from __future__ import annotations

from typing import Any

from google.genai import types
from google.genai._mcp_utils import mcp_to_gemini_tools
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client


async def test_all_tools_become_declarations(server: Any) -> None:
    async with (
        streamablehttp_client(server.mcp_url, headers=server.headers) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        listed = (await session.list_tools()).tools
    declared = {
        declaration.name: declaration.parameters
        for tool in mcp_to_gemini_tools(listed)
        for declaration in tool.function_declarations or []
    }
    assert declared.keys() == {tool.name for tool in listed}
    limit = declared["get_messages"].properties["limit"]
    assert (limit.type, limit.minimum, limit.maximum) == (types.Type.INTEGER, 1, 1000)
    assert declared["add_message"].required == ["session_id", "content"]
    value = declared["set_memory"].properties["value"]
    kinds = {choice.type for choice in value.any_of}
    assert {types.Type.OBJECT, types.Type.ARRAY, types.Type.STRING, types.Type.NUMBER} <= kinds
    for name, parameters in declared.items():
        for argument, schema in (parameters.properties or {}).items():
            assert schema.type is not None or schema.any_of, (name, argument)
