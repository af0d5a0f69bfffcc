"""AutoGen's own agents, with the client's tools and a session as memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.messages import ToolCallExecutionEvent
from autogen_core import CancellationToken, FunctionCall
from autogen_core.memory import MemoryContent, MemoryMimeType
from autogen_core.models import CreateResult, RequestUsage
from autogen_ext.models.replay import ReplayChatCompletionClient

from shared_context_client import (
    InvalidArgument,
    SharedContextClient,
    SyncSharedContextClient,
    ToolNotFound,
    Unauthenticated,
)
from shared_context_client.integrations.autogen import SharedContextMemory, shared_context_tools

MODEL_INFO: Any = {
    "vision": False,
    "function_calling": True,
    "json_output": False,
    "family": "unknown",
    "structured_output": False,
}


def scripted(*calls: tuple[str, dict[str, Any]]) -> ReplayChatCompletionClient:
    said: list[Any] = [
        CreateResult(
            finish_reason="function_calls",
            content=[FunctionCall(id=f"call-{n}", name=name, arguments=json.dumps(arguments))],
            usage=RequestUsage(prompt_tokens=0, completion_tokens=0),
            cached=False,
        )
        for n, (name, arguments) in enumerate(calls)
    ]
    return ReplayChatCompletionClient([*said, "Done."], model_info=MODEL_INFO)


async def executions(agent: AssistantAgent) -> list[Any]:
    """What the tools answered, in a run of the agent to its end."""
    result = await agent.run(task="Go on.")
    assert result.messages[-1].content == "Done."  # type: ignore[union-attr]
    events = [one for one in result.messages if isinstance(one, ToolCallExecutionEvent)]
    return [execution for event in events for execution in event.content]


@pytest.fixture
async def alice(server: Any) -> AsyncIterator[SharedContextClient]:
    async with SharedContextClient(server.url, api_key=server.key, agent_id="alice") as alice:
        yield alice


async def test_an_agent_writes_and_searches(
    alice: SharedContextClient, client: SyncSharedContextClient, session_id: str
) -> None:
    model = scripted(
        ("add_message", {"session_id": session_id, "content": "The changelog is ready."}),
        ("search_context", {"session_id": session_id, "query": "change log"}),
    )
    tools = shared_context_tools(alice)
    agent = AssistantAgent("alice", model, tools=tools, max_tool_iterations=3)  # type: ignore[arg-type]
    added, found = await executions(agent)
    assert (added.is_error, found.is_error) == (False, False)
    assert json.loads(found.content)["results"][0]["message"]["seq"] == 1
    (message,) = client.session(session_id).messages().messages
    assert (message.sender, message.content) == ("alice", "The changelog is ready.")


async def test_a_wrong_key_is_an_error_result_and_no_crash(server: Any) -> None:
    async with SharedContextClient(server.url, api_key="not-the-key", agent_id="eve") as eve:
        tools = shared_context_tools(eve, ["list_sessions"])
        agent = AssistantAgent(
            "eve",
            scripted(("list_sessions", {})),
            tools=tools,  # type: ignore[arg-type]
            max_tool_iterations=2,
        )
        (refused,) = await executions(agent)
        assert refused.is_error
        assert refused.content.startswith("UNAUTHENTICATED:")
        with pytest.raises(Unauthenticated):
            await tools[0].run_json({}, CancellationToken())


async def test_the_model_is_shown_the_server_s_schema(alice: SharedContextClient) -> None:
    shown = {tool.name: tool.schema for tool in shared_context_tools(alice)}
    assert {"create_session", "get_time", "set_memory"} <= set(shown)
    parameters: Any = shown["add_message"]["parameters"]
    assert parameters["required"] == ["session_id", "content"]
    assert parameters["properties"]["content"]["maxLength"] == 100_000
    assert parameters["additionalProperties"] is False


async def test_what_a_model_gets_wrong_the_server_refuses_by_name(
    alice: SharedContextClient,
) -> None:
    (tool,) = shared_context_tools(alice, ["add_message"])
    with pytest.raises(InvalidArgument, match="bogus"):
        await tool.run_json({"session_id": "x", "content": "y", "bogus": 1}, CancellationToken())
    with pytest.raises(ToolNotFound, match="authenticate_agent"):
        shared_context_tools(alice, ["authenticate_agent"])


async def test_null_is_a_value_of_memory_and_no_argument_otherwise(
    alice: SharedContextClient, session_id: str
) -> None:
    (tool,) = shared_context_tools(alice, ["set_memory"])
    given = {"key": "k", "value": None, "session_id": session_id, "expires_in": None}
    await tool.run_json(given, CancellationToken())
    assert (await alice.session(session_id).memory.get("k")).value is None


async def test_a_cancelled_call_ends(alice: SharedContextClient, session_id: str) -> None:
    (tool,) = shared_context_tools(alice, ["wait_for_messages"])
    token = CancellationToken()
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await tool.run_json({"session_id": session_id, "timeout_seconds": 60}, token)


async def test_what_one_agent_adds_to_memory_another_s_context_gets(
    server: Any, alice: SharedContextClient, session_id: str
) -> None:
    async with SharedContextClient(server.url, api_key=server.key, agent_id="bob") as bob:
        theirs = SharedContextMemory(bob.session(session_id))
        await theirs.add(MemoryContent(content="Deploy on Friday.", mime_type="text/plain"))
        await theirs.add(MemoryContent(content="Buy milk.", mime_type=MemoryMimeType.TEXT))
    model = scripted()
    memory = SharedContextMemory(alice.session(session_id))
    agent = AssistantAgent("alice", model, memory=[memory])
    await agent.run(task="Do we deploy on Friday?")
    seen = str(model.create_calls)
    assert "Deploy on Friday." in seen
    assert "Buy milk." not in seen


async def test_memory_keeps_json_and_says_where_it_is_from(
    alice: SharedContextClient, session_id: str
) -> None:
    memory = SharedContextMemory(alice.session(session_id))
    await memory.add(
        MemoryContent(
            content={"city": "Graz"}, mime_type=MemoryMimeType.JSON, metadata={"topic": "home"}
        )
    )
    (found,) = (await memory.query("Graz")).results
    assert found.content == {"city": "Graz"}
    assert found.metadata is not None
    assert (found.metadata["topic"], found.metadata["sender"]) == ("home", "alice")
    assert (await memory.query(" ")).results == []
    with pytest.raises(TypeError, match="bytes"):
        await memory.add(MemoryContent(content=b"x", mime_type=MemoryMimeType.BINARY))
    with pytest.raises(NotImplementedError, match="log"):
        await memory.clear()


async def test_memory_takes_plain_messages_of_other_agents(
    alice: SharedContextClient, session_id: str
) -> None:
    session = alice.session(session_id)
    await session.add("The tests are red.", metadata={"mime_type": 7})
    (found,) = (await SharedContextMemory(session).query("tests red")).results
    assert found.content == "The tests are red."


def test_the_example_of_the_page_works(
    run_example: Any, capsys: pytest.CaptureFixture[str], client: SyncSharedContextClient
) -> None:
    run_example("autogen", model=scripted(("create_session", {"purpose": "Plan the release"})))
    assert capsys.readouterr().out == "Done.\n"
    assert "alice" in {one.created_by for one in client.list_sessions().sessions}
