"""CrewAI's own MCP client against the MCP endpoint."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from crewai import Agent
from crewai.llms.base_llm import BaseLLM
from crewai.mcp import MCPServerHTTP
from crewai.mcp.exceptions import MCPAuthenticationError


class SilentLLM(BaseLLM):
    def call(self, *_: Any, **__: Any) -> str:
        return "Final Answer: Done."


def tools_of(server: Any, headers: dict[str, str]) -> dict[str, Any]:
    """The tools an agent gets, by the name that the server gave them."""
    reference = MCPServerHTTP(url=server.mcp_url, headers=headers)
    llm = SilentLLM(model="silent")
    agent = Agent(role="r", goal="g", backstory="b", llm=llm, mcps=[reference])
    return {tool.original_tool_name: tool for tool in agent.get_mcp_tools([reference])}


def call(tool: Any, **arguments: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(tool.run(**arguments))
    return answer


def test_it_lists_the_tools(server: Any) -> None:
    assert {"create_session", "add_message", "get_time"} <= set(tools_of(server, server.headers))


@pytest.mark.xfail(
    sys.version_info < (3, 12),
    reason="CrewAI 1.15.30 loses all answers of MCP servers over HTTP under Python 3.11",
    raises=RuntimeError,
    strict=True,
)
def test_it_writes_and_searches(server: Any) -> None:
    tools = tools_of(server, server.headers)
    session_id = call(tools["create_session"], purpose="By MCP")["session_id"]
    added = call(tools["add_message"], session_id=session_id, content="The tests are red.")
    found = call(tools["search_context"], session_id=session_id, query="test red")
    assert found["results"][0]["message"]["id"] == added["message_id"]


@pytest.mark.parametrize("headers", [{"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}])
def test_nobody_connects_with_a_wrong_credential_and_the_user_is_told(
    server: Any, headers: dict[str, str]
) -> None:
    with pytest.raises(MCPAuthenticationError, match="HTTP 401 Unauthorized"):
        tools_of(server, headers)
