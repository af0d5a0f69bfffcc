"""smolagents' collection of MCP tools, as its CodeAgent calls them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from smolagents import Tool, ToolCollection


@pytest.fixture
def tools(server: Any) -> Iterator[dict[str, Tool]]:
    at = {"url": server.mcp_url, "transport": "streamable-http", "headers": server.headers}
    with ToolCollection.from_mcp(at, trust_remote_code=True, structured_output=False) as collection:
        yield {tool.name: tool for tool in collection.tools}


def call(tool: Tool, **arguments: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(tool(**arguments))
    return answer


def test_all_tools_are_converted_and_write_and_search(tools: dict[str, Tool]) -> None:
    for tool in tools.values():
        tool.validate_arguments()
        assert tool.to_code_prompt()
    session_id = call(tools["create_session"], purpose="By smolagents")["session_id"]
    call(tools["add_message"], session_id=session_id, content="The tests are red.")
    found = call(tools["search_context"], session_id=session_id, query="test red")
    assert found["results"][0]["message"]["content"] == "The tests are red."


def test_any_json_is_stored_and_an_error_is_told(tools: dict[str, Tool]) -> None:
    for value in ({"a": [1, "b"]}, [1, "x"], "text", 1.5, None):
        call(tools["set_memory"], key="smolagents", value=value)
        assert call(tools["get_memory"], key="smolagents")["value"] == value
    assert call(tools["get_session"], session_id="x")["code"] == "SESSION_NOT_FOUND"
