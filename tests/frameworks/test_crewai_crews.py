"""CrewAI's own crews, with the client's tools."""

from __future__ import annotations

import json
from typing import Any

import pytest
from crewai import Agent, Crew, Task
from crewai.llms.base_llm import BaseLLM
from crewai.tools.tool_failure import ToolFailure
from pydantic import PrivateAttr

from shared_context_client import SyncSharedContextClient, ToolNotFound
from shared_context_client.integrations.crewai import shared_context_tools


class ScriptedLLM(BaseLLM):
    """Makes the calls it is given, one a turn, and says that it is done. `seen`: what it was told."""

    calls: list[tuple[str, dict[str, Any]]]
    _offered: dict[str, Any] = PrivateAttr(default_factory=dict)
    _seen: list[Any] = PrivateAttr(default_factory=list)

    def supports_function_calling(self) -> bool:
        return True

    def call(self, messages: Any, tools: Any = None, *_: Any, **__: Any) -> Any:
        self._seen = list(messages)
        self._offered |= {tool["function"]["name"]: tool["function"] for tool in tools or []}
        if not self.calls:
            return "Final Answer: Done."
        name, arguments = self.calls.pop(0)
        said = {"name": name, "arguments": json.dumps(arguments)}
        return [{"id": f"call-{len(messages)}", "type": "function", "function": said}]

    @property
    def offered(self) -> dict[str, Any]:
        return self._offered

    @property
    def answers(self) -> list[str]:
        """What the tools answered, as the model was told."""
        return [one["content"] for one in self._seen if one["role"] == "tool"]


def scripted(*calls: tuple[str, dict[str, Any]]) -> ScriptedLLM:
    return ScriptedLLM(model="scripted", calls=list(calls))


def run(llm: ScriptedLLM, **options: Any) -> Any:
    """The task's output, of a crew that goes through the script."""
    agent = Agent(role="Planner", goal="Plan", backstory="Plans.", llm=llm, **options)
    task = Task(description="Go on.", expected_output="A word.", agent=agent)
    return Crew(agents=[agent], tasks=[task], cache=True).kickoff().tasks_output[0]


@pytest.fixture
def eve(server: Any) -> Any:
    with SyncSharedContextClient(server.url, api_key="not-the-key", agent_id="eve") as eve:
        yield eve


def test_a_crew_writes_and_searches(client: SyncSharedContextClient, session_id: str) -> None:
    llm = scripted(
        ("add_message", {"session_id": session_id, "content": "The changelog is ready."}),
        ("search_context", {"session_id": session_id, "query": "change log"}),
    )
    output = run(llm, tools=shared_context_tools(client))
    assert "Done." in output.raw
    _, found = llm.answers
    assert json.loads(found)["results"][0]["message"]["seq"] == 1
    assert client.session(session_id).messages().count == 1
    assert {"create_session", "set_memory", "get_time"} <= set(llm.offered)


def test_the_same_call_is_asked_again_and_not_answered_from_a_cache(
    client: SyncSharedContextClient, session_id: str
) -> None:
    read = ("get_messages", {"session_id": session_id})
    llm = scripted(read, ("add_message", {"session_id": session_id, "content": "News."}), read)
    run(llm, tools=shared_context_tools(client))
    before, _, after = llm.answers
    assert (json.loads(before)["count"], json.loads(after)["count"]) == (0, 1)


def test_what_a_model_leaves_out_by_null_is_not_given(
    client: SyncSharedContextClient, session_id: str
) -> None:
    """CrewAI shows models all arguments as required."""
    llm = scripted(("get_messages", {"session_id": session_id, "limit": None, "sender": None}))
    run(llm, tools=shared_context_tools(client, ["get_messages"]))
    assert json.loads(llm.answers[0])["count"] == 0
    shown = llm.offered["get_messages"]["parameters"]["properties"]
    assert {"type": "null"} in shown["sender"]["anyOf"]
    assert shown["session_id"]["type"] == "string"


def test_a_wrong_key_is_a_tool_failure_and_no_crash(eve: SyncSharedContextClient) -> None:
    llm = scripted(("list_sessions", {}))
    output = run(llm, tools=shared_context_tools(eve))
    assert "Done." in output.raw
    assert llm.answers[0].startswith("UNAUTHENTICATED:")
    (record,) = output.tool_failures
    assert (record.failure.code, record.failure.retryable) == ("UNAUTHENTICATED", False)


async def test_a_tool_is_awaited_too(client: SyncSharedContextClient, session_id: str) -> None:
    (tool,) = shared_context_tools(client, ["get_session"])
    assert json.loads(await tool.arun(session_id=session_id))["session"]["session_id"] == session_id


def test_what_a_model_gets_wrong_the_server_refuses_by_name(
    client: SyncSharedContextClient, session_id: str
) -> None:
    (tool,) = shared_context_tools(client, ["get_messages"])
    refused = tool.run(session_id=session_id, limit="many")
    assert isinstance(refused, ToolFailure)
    assert (refused.code, refused.details["field"]) == ("INVALID_ARGUMENT", "limit")
    with pytest.raises(ToolNotFound, match="authenticate_agent"):
        shared_context_tools(client, ["authenticate_agent"])


def test_the_example_of_the_page_works(
    run_example: Any, capsys: pytest.CaptureFixture[str], client: SyncSharedContextClient
) -> None:
    run_example("crewai", model=scripted(("create_session", {"purpose": "Plan the release"})))
    assert "Done." in capsys.readouterr().out
    assert "alice" in {one.created_by for one in client.list_sessions().sessions}
