"""LangChain's own runnables and agents, with the client's tools."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import ToolException
from pydantic import Field

from shared_context_client import (
    InvalidArgument,
    SearchResults,
    SharedContextClient,
    SyncSharedContextClient,
    ToolNotFound,
    Unauthenticated,
)
from shared_context_client.integrations.langchain import shared_context_tools


class ScriptedModel(GenericFakeChatModel):
    """Says what it is given; `offered` are the tools an agent has bound to it."""

    offered: list[Any] = Field(default_factory=list)

    def bind_tools(self, tools: Any, **kwargs: Any) -> ScriptedModel:
        self.offered.extend(tools)
        return self


def scripted(*calls: tuple[str, dict[str, Any]]) -> ScriptedModel:
    said = [
        AIMessage("", tool_calls=[{"name": name, "args": args, "id": f"call-{n}"}])
        for n, (name, args) in enumerate(calls)
    ]
    return ScriptedModel(messages=iter([*said, AIMessage("Done.")]))


def tool_messages(answer: dict[str, Any]) -> list[ToolMessage]:
    return [message for message in answer["messages"] if isinstance(message, ToolMessage)]


def test_an_agent_writes_and_searches(client: SyncSharedContextClient, session_id: str) -> None:
    model = scripted(
        ("add_message", {"session_id": session_id, "content": "The changelog is ready."}),
        ("search_context", {"session_id": session_id, "query": "change log"}),
    )
    agent = create_agent(model, shared_context_tools(client))
    added, found = tool_messages(agent.invoke({"messages": [("user", "Go on.")]}))
    assert (added.status, found.status) == ("success", "success")
    assert json.loads(found.content)["results"][0]["message"]["seq"] == 1  # type: ignore[arg-type]
    assert isinstance(found.artifact, SearchResults)
    assert client.session(session_id).messages().messages[0].content == "The changelog is ready."
    assert {"create_session", "set_memory", "get_time"} <= {tool.name for tool in model.offered}


async def test_an_agent_of_an_event_loop_uses_the_async_client(
    server: Any, session_id: str
) -> None:
    async with SharedContextClient(server.url, api_key=server.key, agent_id="alice") as client:
        model = scripted(("add_message", {"session_id": session_id, "content": "Hello."}))
        agent = create_agent(model, shared_context_tools(client, ["add_message"]))
        (added,) = tool_messages(await agent.ainvoke({"messages": [("user", "Go on.")]}))
    assert added.artifact.seq == 1
    assert {tool.name for tool in model.offered} == {"add_message"}


async def test_a_tool_of_the_sync_client_is_awaited_too(
    client: SyncSharedContextClient, session_id: str
) -> None:
    (tool,) = shared_context_tools(client, ["get_session"])
    answer = await tool.ainvoke({"session_id": session_id})
    assert json.loads(answer)["session"]["purpose"] == "Plan the release"


def test_the_model_is_shown_the_server_s_schema(client: SyncSharedContextClient) -> None:
    (tool,) = shared_context_tools(client, ["add_message"])
    schema: Any = tool.tool_call_schema
    assert schema["required"] == ["session_id", "content"]
    assert schema["properties"]["content"]["maxLength"] == 100_000
    assert "auth_token" not in schema["properties"]


def test_a_wrong_key_is_an_error_message_and_no_crash(server: Any, session_id: str) -> None:
    with SyncSharedContextClient(server.url, api_key="not-the-key", agent_id="eve") as eve:
        model = scripted(("get_messages", {"session_id": session_id}))
        agent = create_agent(model, shared_context_tools(eve))
        answer = agent.invoke({"messages": [("user", "Go on.")]})
        (refused,) = tool_messages(answer)
        assert refused.status == "error"
        assert str(refused.content).startswith("UNAUTHENTICATED:")
        assert answer["messages"][-1].content == "Done."

        (tool,) = shared_context_tools(eve, ["list_sessions"])
        tool.handle_tool_error = False
        with pytest.raises(ToolException) as caught:
            tool.invoke({})
        assert isinstance(caught.value.__cause__, Unauthenticated)


@pytest.mark.parametrize(
    "wrong",
    [
        {"session_id": "x", "content": "y", "bogus": 1},
        {"session_id": "x"},
        {"session_id": ["x"], "content": "y"},
    ],
)
def test_what_a_model_gets_wrong_the_server_refuses_by_name(
    client: SyncSharedContextClient, wrong: dict[str, Any]
) -> None:
    (tool,) = shared_context_tools(client, ["add_message"])
    tool.handle_tool_error = False
    with pytest.raises(ToolException) as caught:
        tool.invoke(wrong)
    assert isinstance(caught.value.__cause__, InvalidArgument)


def test_a_wait_of_nonsense_is_refused_by_the_server(
    client: SyncSharedContextClient, session_id: str
) -> None:
    (tool,) = shared_context_tools(client, ["wait_for_messages"])
    refused = tool.invoke({"session_id": session_id, "timeout_seconds": "soon"})
    assert refused.startswith("INVALID_ARGUMENT: ")
    assert "timeout_seconds" in refused


def test_only_known_tools_can_be_asked_for(client: SyncSharedContextClient) -> None:
    for name in ("no_such_tool", "authenticate_agent"):
        with pytest.raises(ToolNotFound, match=name):
            shared_context_tools(client, [name])


def test_the_example_of_the_page_works(
    run_example: Any, capsys: pytest.CaptureFixture[str], client: SyncSharedContextClient
) -> None:
    model = scripted(("create_session", {"purpose": "Plan the release"}))
    run_example("langchain", model=model)
    assert capsys.readouterr().out == "Done.\n"
    assert "alice" in {one.created_by for one in client.list_sessions().sessions}
