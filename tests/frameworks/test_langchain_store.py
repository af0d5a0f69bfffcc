"""LangGraph's store over the server's memory."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.tools import ToolRuntime, tool
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from shared_context_client import SyncSharedContextClient, Unauthenticated
from shared_context_client.integrations.langgraph import SharedContextStore


@pytest.fixture
def store(client: SyncSharedContextClient, session_id: str) -> SharedContextStore:
    return SharedContextStore(client, session_id=session_id)


def test_what_one_agent_puts_another_gets(
    server: Any, store: SharedContextStore, session_id: str
) -> None:
    store.put(("users", "anna b"), "likes/dislikes", {"food": "päl"})
    with SyncSharedContextClient(server.url, api_key=server.key, agent_id="other") as other:
        found = SharedContextStore(other, session_id=session_id).get(
            ("users", "anna b"), "likes/dislikes"
        )
    assert found is not None
    assert (found.value, found.key) == ({"food": "päl"}, "likes/dislikes")
    assert found.created_at <= found.updated_at
    assert store.get(("users", "anna"), "likes/dislikes") is None
    (item,) = store.search(("users",))
    assert (item.namespace, item.key) == (("users", "anna b"), "likes/dislikes")


def test_deleting_is_final_and_may_be_repeated(store: SharedContextStore) -> None:
    store.put(("a",), "k", {"n": 1})
    store.delete(("a",), "k")
    store.delete(("a",), "k")
    assert store.get(("a",), "k") is None


def test_searching_filters_below_a_namespace(store: SharedContextStore) -> None:
    for n in range(4):
        store.put(("docs", "v1"), f"k{n}", {"n": n})
    store.put(("docs2",), "k", {"n": 9})
    found = store.search(("docs",), filter={"n": {"$gte": 1}}, limit=2)
    assert [(item.namespace, item.value["n"]) for item in found] == [
        (("docs", "v1"), 1),
        (("docs", "v1"), 2),
    ]
    assert len(store.search(("docs",), limit=10, offset=3)) == 1
    assert found[0].created_at == store.get(("docs", "v1"), "k1").created_at  # type: ignore[union-attr]


def test_namespaces_are_listed(
    store: SharedContextStore, client: SyncSharedContextClient, session_id: str
) -> None:
    store.put(("a", "b"), "k", {})
    store.put(("a", "c"), "k", {})
    client.session(session_id).memory.set("not-of-a-store", [1], scope="shared")
    assert store.list_namespaces(prefix=("a",)) == [("a", "b"), ("a", "c")]
    assert store.list_namespaces(max_depth=1) == [("a",)]
    assert store.list_namespaces(suffix=("c",)) == [("a", "c")]


async def test_it_is_awaited_too(store: SharedContextStore) -> None:
    await store.aput(("a",), "k", {"n": 1})
    found = await store.aget(("a",), "k")
    assert found is not None
    assert found.value == {"n": 1}


def test_a_tool_of_an_agent_reaches_it(store: SharedContextStore) -> None:
    @tool
    def remember(city: str, runtime: ToolRuntime) -> str:
        """Remember where the user lives."""
        assert runtime.store is not None
        runtime.store.put(("users",), "home", {"city": city})
        return "ok"

    class Model(GenericFakeChatModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Model:
            return self

    call = {"name": "remember", "args": {"city": "Graz"}, "id": "1"}
    model = Model(messages=iter([AIMessage("", tool_calls=[call]), AIMessage("Done.")]))
    agent = create_agent(model, [remember], store=store)
    agent.invoke({"messages": [("user", "I live in Graz.")]})
    found = store.get(("users",), "home")
    assert found is not None
    assert found.value == {"city": "Graz"}


def test_a_wrong_key_is_refused(server: Any) -> None:
    with (
        SyncSharedContextClient(server.url, api_key="not-the-key", agent_id="eve") as eve,
        pytest.raises(Unauthenticated),
    ):
        SharedContextStore(eve).get(("a",), "k")


def test_the_example_of_the_page_works(
    run_example: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example("langgraph-store")
    assert capsys.readouterr().out == "{'style': 'short answers'}\n"
