"""The OpenAI Agents SDK against the MCP endpoint."""

from __future__ import annotations

import json
from typing import Any

import pytest
from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage
from agents.items import ToolCallOutputItem
from agents.mcp import MCPServerStreamableHttp
from mcp.shared.exceptions import MCPError
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)

from shared_context_client import SyncSharedContextClient

QUIET = RunConfig(tracing_disabled=True)


class ScriptedModel(Model):
    """Makes the calls it is given, one a turn, and says that it is done."""

    def __init__(self, *calls: tuple[str, dict[str, Any]]) -> None:
        self._calls = iter(enumerate(calls))
        self.offered: set[str] = set()

    async def get_response(  # type: ignore[override]
        self,
        system_instructions: Any,
        input: Any,
        model_settings: Any,
        tools: Any,
        *_: Any,
        **__: Any,
    ) -> ModelResponse:
        self.offered |= {tool.name for tool in tools}
        return ModelResponse(output=[self._say()], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def _say(self) -> Any:
        try:
            number, (name, arguments) = next(self._calls)
        except StopIteration:
            text = ResponseOutputText(annotations=[], text="Done.", type="output_text")
            return ResponseOutputMessage(
                id="said", content=[text], role="assistant", status="completed", type="message"
            )
        return ResponseFunctionToolCall(
            call_id=f"call-{number}",
            name=name,
            arguments=json.dumps(arguments),
            type="function_call",
        )


def connect(server: Any, headers: dict[str, str]) -> MCPServerStreamableHttp:
    return MCPServerStreamableHttp({"url": server.mcp_url, "headers": headers})


async def run(connected: MCPServerStreamableHttp, model: ScriptedModel) -> list[Any]:
    agent = Agent("alice", model=model, mcp_servers=[connected])
    result = await Runner.run(agent, "Go on.", run_config=QUIET)
    assert result.final_output == "Done."
    return [one.output for one in result.new_items if isinstance(one, ToolCallOutputItem)]


async def test_an_agent_lists_tools_writes_and_searches(
    server: Any, client: SyncSharedContextClient, session_id: str
) -> None:
    model = ScriptedModel(
        ("create_session", {"purpose": "By MCP"}),
        ("add_message", {"session_id": session_id, "content": "The tests are red."}),
        ("search_context", {"session_id": session_id, "query": "test red"}),
    )
    async with connect(server, server.headers) as connected:
        _, _, found = await run(connected, model)
    assert {"create_session", "add_message", "get_time"} <= model.offered
    assert "The tests are red." in str(found)
    assert client.session(session_id).messages().count == 1


async def test_an_argument_that_is_wrong_is_told_to_the_model(server: Any) -> None:
    model = ScriptedModel(("get_session", {"session_id": "x"}))
    async with connect(server, server.headers) as connected:
        (refused,) = await run(connected, model)
    assert "SESSION_NOT_FOUND" in str(refused)


@pytest.mark.parametrize("headers", [{"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}])
async def test_nobody_connects_with_a_wrong_credential_and_the_server_says_why(
    server: Any, headers: dict[str, str], causes: Any
) -> None:
    with pytest.raises((MCPError, BaseExceptionGroup)) as caught:
        async with connect(server, headers) as connected:
            await connected.list_tools()
    assert "is not valid" in causes(caught.value)


def test_the_example_of_the_page_works(
    run_example: Any, capsys: pytest.CaptureFixture[str], client: SyncSharedContextClient
) -> None:
    run_example("openai-agents", model=ScriptedModel(("create_session", {"purpose": "Plan"})))
    assert capsys.readouterr().out == "Done.\n"
    assert "alice" in {one.created_by for one in client.list_sessions().sessions}
