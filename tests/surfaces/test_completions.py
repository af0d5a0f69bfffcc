"""Completion of arguments: what the caller may see and nothing else."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from fastmcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, Completion, PromptReference, ResourceTemplateReference

from shared_context_server.completions import MAX_VALUES
from tests.surfaces.conftest import RestSurface, headers_of
from tests.surfaces.test_mcp import MODERN, client_of, read_json

CATCH_UP = PromptReference(type="ref/prompt", name="catch_up")
HAND_OVER = PromptReference(type="ref/prompt", name="hand_over")
SET_UP = PromptReference(type="ref/prompt", name="set_up_collaboration")
SESSION = ResourceTemplateReference(type="ref/resource", uri="session://{session_id}/messages")
MEMORY = ResourceTemplateReference(type="ref/resource", uri="agent://{agent_id}/memory")


async def complete(
    client: Client[Any], ref: Any, name: str, value: str, **given: str
) -> Completion:
    return await client.complete(ref, {"name": name, "value": value}, context_arguments=given)


async def new_session(url: str, agent_id: str, **arguments: Any) -> str:
    async with RestSurface(url, headers_of(agent_id)) as surface:
        session_id: str = (await surface.call("create_session", **arguments))["session_id"]
        await surface.call("add_message", session_id=session_id, content="hello")
    return session_id


@pytest.mark.parametrize("mode", [MODERN, "legacy"])
@pytest.mark.parametrize("ref", [CATCH_UP, SESSION], ids=["prompt", "template"])
async def test_sessions_are_found_by_their_id_and_by_words_of_their_purpose(
    url: str, ref: Any, mode: str
) -> None:
    release = await new_session(url, "alice", purpose="Plan the release")
    other = await new_session(url, "alice", purpose="Fix the tests")
    async with client_of(url, headers_of("alice"), mode) as client:
        everything = await complete(client, ref, "session_id", "")
        assert (everything.values, everything.total) == ([other, release], 2)
        assert (await complete(client, ref, "session_id", release[:-1])).values == [release]
        assert (await complete(client, ref, "session_id", "RELEASE")).values == [release]
        assert (await complete(client, ref, "session_id", "nothing like it")).values == []


async def test_sessions_one_may_not_read_are_not_offered(url: str) -> None:
    await new_session(url, "alice", purpose="Secret plan", access="invited")
    async with client_of(url, headers_of("eve")) as client:
        assert (await complete(client, CATCH_UP, "session_id", "")).values == []
        assert (await complete(client, CATCH_UP, "session_id", "secret")).values == []


async def test_agents_are_offered_where_they_can_be_named(url: str) -> None:
    session_id = await new_session(url, "alice", purpose="x")
    await new_session(url, "alan", purpose="y")
    async with client_of(url, headers_of("alice")) as client:
        found = await complete(client, HAND_OVER, "to_agent", "al")
        assert sorted(found.values) == ["alan", "alice"]
        here = await complete(client, HAND_OVER, "to_agent", "al", session_id=session_id)
        assert here.values == ["alice"]
        second = await complete(client, SET_UP, "agents", "bob, ala")
        assert second.values == ["bob, alan"]
        assert (await complete(client, SET_UP, "purpose", "a")).values == []


async def test_of_memories_only_ones_own_is_offered(url: str) -> None:
    await new_session(url, "alan", purpose="y")
    async with client_of(url, headers_of("alice")) as client:
        assert (await complete(client, MEMORY, "agent_id", "al")).values == ["alice"]


@pytest.mark.parametrize("mode", [MODERN, "legacy"])
async def test_keys_of_memory_are_found_and_lead_to_their_values(url: str, mode: str) -> None:
    session_id = await new_session(url, "alan", purpose="y", access="invited")
    async with RestSurface(url, headers_of("alan")) as alan:
        for key in ("api/base url", "api/port", "notes"):
            await alan.call(
                "set_memory", key=key, value=f"shared {key}", session_id=session_id, scope="shared"
            )
        await alan.call("set_memory", key="apiary", value="private")
    shared = ResourceTemplateReference(
        type="ref/resource", uri="session://{session_id}/memory/{key}"
    )
    private = ResourceTemplateReference(type="ref/resource", uri="agent://{agent_id}/memory/{key}")
    async with client_of(url, headers_of("alan"), mode) as client:
        found = await complete(client, shared, "key", "api", session_id=session_id)
        assert (found.values, found.total) == (["api/base url", "api/port"], 2)
        assert (await complete(client, shared, "key", "api")).values == []
        own = await complete(client, private, "key", "api", agent_id="alan")
        assert own.values == ["apiary"]
        shared_uri = f"session://{session_id}/memory/{quote(found.values[0], safe='')}"
        assert (await read_json(client, shared_uri))["value"] == "shared api/base url"
        assert (await read_json(client, "agent://alan/memory/apiary"))["value"] == "private"
        with pytest.raises(MCPError, match="not found"):
            await client.read_resource(f"session://{session_id}/memory/nothing")
    async with client_of(url, headers_of("eve"), mode) as client:
        assert (await complete(client, private, "key", "api", agent_id="alan")).values == []
        with pytest.raises(MCPError):
            await complete(client, shared, "key", "api", session_id=session_id)
        for uri in (shared_uri, "agent://alan/memory/apiary"):
            with pytest.raises(MCPError):
                await client.read_resource(uri)


async def test_an_answer_has_a_bound_and_says_that_there_is_more(url: str) -> None:
    async with RestSurface(url, headers_of("alice")) as alice:
        for _ in range(MAX_VALUES + 1):
            await alice.call("create_session", purpose="many")
    async with client_of(url, headers_of("alice")) as client:
        found = await complete(client, CATCH_UP, "session_id", "")
        assert (len(found.values), found.total, found.has_more) == (
            MAX_VALUES,
            MAX_VALUES + 1,
            True,
        )
        assert (await complete(client, CATCH_UP, "session_id", "x" * 100_000)).values == []


@pytest.mark.parametrize(
    "ref, argument, named",
    [
        (PromptReference(type="ref/prompt", name="nothing"), "session_id", "nothing"),
        (ResourceTemplateReference(type="ref/resource", uri="file:///{path}"), "path", "file:///"),
        (CATCH_UP, "purpose", "purpose"),
        (MEMORY, "session_id", "session_id"),
    ],
)
async def test_what_is_not_served_is_refused_by_name(
    url: str, ref: Any, argument: str, named: str
) -> None:
    async with client_of(url, headers_of("alice")) as client:
        with pytest.raises(MCPError, match=named) as caught:
            await complete(client, ref, argument, "")
    assert caught.value.error.code == INVALID_PARAMS


async def test_strangers_are_offered_nothing(url: str) -> None:
    await new_session(url, "alice", purpose="x")
    async with client_of(url) as client:
        for ref, argument in (
            (CATCH_UP, "session_id"),
            (HAND_OVER, "to_agent"),
            (SESSION, "session_id"),
            (MEMORY, "agent_id"),
        ):
            with pytest.raises(MCPError) as caught:
                await complete(client, ref, argument, "")
            assert caught.value.error.data["code"] == "UNAUTHENTICATED"
