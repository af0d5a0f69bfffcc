"""Pydantic AI against the MCP endpoint."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

from shared_context_client import SyncSharedContextClient


class Script:
    """A model that makes the calls it is given, one a turn, and says that it is done."""

    def __init__(self, *calls: tuple[str, dict[str, Any]]) -> None:
        self._calls = iter(calls)
        self.offered: set[str] = set()
        self.model = FunctionModel(self._answer)

    def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        self.offered |= {tool.name for tool in info.function_tools}
        try:
            name, arguments = next(self._calls)
        except StopIteration:
            return ModelResponse(parts=[TextPart("Done.")])
        return ModelResponse(parts=[ToolCallPart(name, arguments)])


def connect(server: Any, headers: dict[str, str]) -> MCPToolset[None]:
    return MCPToolset(server.mcp_url, headers=headers)


async def run(toolset: MCPToolset[None], script: Script) -> list[ModelMessage]:
    agent = Agent(script.model, toolsets=[toolset])
    result = await agent.run("Go on.")
    assert result.output == "Done."
    return result.all_messages()


def parts(messages: list[ModelMessage], kind: type) -> list[Any]:
    return [part for message in messages for part in message.parts if isinstance(part, kind)]


async def test_an_agent_lists_tools_writes_and_searches(
    server: Any, client: SyncSharedContextClient, session_id: str
) -> None:
    script = Script(
        ("create_session", {"purpose": "By MCP"}),
        ("add_message", {"session_id": session_id, "content": "The tests are red."}),
        ("search_context", {"session_id": session_id, "query": "test red"}),
    )
    messages = await run(connect(server, server.headers), script)
    _, _, found = parts(messages, ToolReturnPart)
    assert {"create_session", "add_message", "get_time"} <= script.offered
    assert found.content["results"][0]["message"]["content"] == "The tests are red."
    assert client.session(session_id).messages().count == 1


async def test_an_argument_that_is_wrong_is_told_to_the_model(server: Any) -> None:
    script = Script(("get_session", {"session_id": "x"}))
    messages = await run(connect(server, server.headers), script)
    (refused,) = parts(messages, ToolReturnPart)
    assert refused.outcome == "retried"
    assert "SESSION_NOT_FOUND" in refused.content


@pytest.mark.parametrize("headers", [{"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}])
async def test_nobody_connects_with_a_wrong_credential_and_the_server_says_why(
    server: Any, headers: dict[str, str]
) -> None:
    with pytest.raises(Exception, match="is not valid"):
        await run(connect(server, headers), Script(("list_sessions", {})))


def test_the_example_of_the_page_works(
    run_example: Any, capsys: pytest.CaptureFixture[str], client: SyncSharedContextClient
) -> None:
    run_example("pydantic-ai", model=Script(("create_session", {"purpose": "Plan"})).model)
    assert capsys.readouterr().out == "Done.\n"
    assert "alice" in {one.created_by for one in client.list_sessions().sessions}
