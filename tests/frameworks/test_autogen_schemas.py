"""autogen-ext's models of the tools' arguments."""

from __future__ import annotations

import json
from typing import Any

import pytest
from autogen_core import CancellationToken
from autogen_ext.tools.mcp import StreamableHttpServerParams, mcp_server_tools


async def test_all_tools_have_a_model_and_any_json_passes_it(server: Any) -> None:
    params = StreamableHttpServerParams(url=server.mcp_url, headers=server.headers)
    tools = {tool.name: tool for tool in await mcp_server_tools(params)}
    assert {"add_message", "set_memory", "get_time"} <= tools.keys()
    model = tools["set_memory"].args_type()
    for value in ({"a": [1, "b"]}, ["x"], [1, 2], [{"a": 1}], "text", 1.5, True, None):
        assert model.model_validate({"key": "k", "value": value}).value == value  # type: ignore[attr-defined]
    stop = CancellationToken()
    for value in ({"a": [1, "b"]}, [1.0, 2.0]):
        await tools["set_memory"].run_json({"key": "autogen", "value": value}, stop)
        (found,) = await tools["get_memory"].run_json({"key": "autogen"}, stop)
        assert json.loads(found.text)["value"] == value


@pytest.mark.parametrize("content", ["", "x" * 100_001])
async def test_the_model_holds_the_bounds(server: Any, content: str) -> None:
    params = StreamableHttpServerParams(url=server.mcp_url, headers=server.headers)
    tools = {tool.name: tool for tool in await mcp_server_tools(params)}
    with pytest.raises(ValueError, match="content"):
        tools["add_message"].args_type().model_validate({"session_id": "s", "content": content})
