"""What the adapters of agent frameworks share; the adapters themselves have tests/frameworks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared_context_client import InvalidArgument, SharedContextClient, ToolNotFound
from shared_context_client.integrations.toolset import (
    acall_tool,
    arguments_model,
    select_tools,
)
from shared_context_server.tools.catalog import TOOLS
from tests.client.conftest import create_session

ROOT = Path(__file__).parents[2]
CREDENTIALS = {"authenticate_agent", "refresh_token", "revoke_token"}


def test_models_are_given_all_tools_but_those_for_credentials() -> None:
    assert {tool.name for tool in select_tools(None)} == {tool.name for tool in TOOLS} - CREDENTIALS
    for tool in select_tools(None):
        assert not {"auth_token", "api_key"} & set(tool.schema["properties"])


def test_tools_come_in_the_order_they_are_named_in() -> None:
    names = ["search_context", "add_message"]
    assert [tool.name for tool in select_tools(names)] == names
    with pytest.raises(ToolNotFound, match="refresh_token"):
        select_tools(["refresh_token"])
    with pytest.raises(ToolNotFound, match="Did you mean add_message"):
        select_tools(["addMessage"])


@pytest.mark.parametrize("tool", select_tools(None), ids=lambda tool: tool.name)
def test_a_model_of_arguments_has_the_server_s_schema(tool: object) -> None:
    model = arguments_model(tool)  # type: ignore[arg-type]
    shown = model.model_json_schema()
    assert shown == tool.schema  # type: ignore[attr-defined]
    shown["properties"].clear()  # as frameworks do
    assert model.model_json_schema() == tool.schema  # type: ignore[attr-defined]


def test_a_model_of_arguments_dumps_what_was_given_and_leaves_checking_to_the_server() -> None:
    (tool,) = select_tools(["set_memory"])
    given = {"key": 7, "value": None, "bogus": [1]}
    assert arguments_model(tool).model_validate(given).model_dump() == given


def test_optional_arguments_may_be_shown_as_nullable() -> None:
    (tool,) = select_tools(["get_messages"])
    shown = arguments_model(tool, takes_null=True).model_json_schema()["properties"]
    assert shown["sender"] == {"anyOf": [tool.schema["properties"]["sender"], {"type": "null"}]}
    assert shown["session_id"] == tool.schema["properties"]["session_id"]


async def test_what_a_model_made_up_is_refused_by_name(client: SharedContextClient) -> None:
    session_id = await create_session(client)
    (tool,) = select_tools(["wait_for_messages"])
    with pytest.raises(InvalidArgument) as caught:
        await acall_tool(client, tool, {"session_id": session_id, "timeout_seconds": "soon"})
    assert caught.value.details["field"] == "timeout_seconds"
    with pytest.raises(InvalidArgument, match="bogus"):
        await acall_tool(client, tool, {"session_id": session_id, "bogus": 1})


def test_every_example_of_the_page_is_run_by_a_test() -> None:
    page = (ROOT / "docs/integrations.md").read_text(encoding="utf-8")
    marks = re.findall(r"<!-- ([\w-]+): tested -->\s+```python\n", page)
    assert page.count("```python\n") == len(marks)
    tests = [path.read_text(encoding="utf-8") for path in ROOT.glob("tests/frameworks/test_*.py")]
    run = re.findall(r'run_example\("([\w-]+)"', "\n".join(tests))
    assert sorted(run) == sorted(marks)


def test_the_page_names_the_versions_that_are_installed() -> None:
    page = (ROOT / "docs/integrations.md").read_text(encoding="utf-8")
    pinned = {
        name: version
        for path in ROOT.glob("requirements/frameworks-*.txt")
        for name, version in re.findall(r"^([\w-]+)==([\w.]+)", path.read_text(), re.MULTILINE)
    }
    rows = {
        "OpenAI Agents SDK": ["openai-agents"],
        "Pydantic AI": ["pydantic-ai-slim"],
        "LangChain": ["langchain", "langgraph", "langchain-mcp-adapters"],
        "CrewAI": ["crewai"],
        "AutoGen": ["autogen-core", "autogen-agentchat", "autogen-ext"],
    }
    for client, names in rows.items():
        (row,) = re.findall(rf"^\| \[{client}\].*$", page, re.MULTILINE)
        for name in names:
            assert pinned[name] in row, name
