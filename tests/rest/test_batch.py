"""POST /mcp/batch: many calls in one request, each with its own answer."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from shared_context_server.server import Server
from tests.rest.conftest import (
    OpenClient,
    assert_error,
    call,
    client_of,
    create_session,
)
from tests.settings import API_KEY


async def run(client: httpx.AsyncClient, *calls: dict[str, Any]) -> list[dict[str, Any]]:
    response = await client.post("/mcp/batch", json={"calls": calls})
    assert response.status_code == 200, response.text
    body = response.json()
    assert set(body) == {"results"}
    results: list[dict[str, Any]] = body["results"]
    assert all(set(result) == {"status", "result"} for result in results)
    return results


async def test_calls_run_in_order(agent: httpx.AsyncClient) -> None:
    session_id = await create_session(agent)
    results = await run(
        agent,
        *(
            {"tool": "add_message", "arguments": {"session_id": session_id, "content": str(n)}}
            for n in range(99)
        ),
        {"tool": "get_messages", "arguments": {"session_id": session_id, "limit": 100}},
    )
    assert [result["result"]["seq"] for result in results[:-1]] == list(range(1, 100))
    contents = [message["content"] for message in results[-1]["result"]["messages"]]
    assert contents == [str(n) for n in range(99)]


async def test_a_call_that_fails_has_its_own_status_and_stops_nothing(
    agent: httpx.AsyncClient,
) -> None:
    results = await run(
        agent,
        {"tool": "create_session", "arguments": {}},
        {"tool": "make_coffee"},
        {"tool": "get_audit_log", "arguments": None},
        {"tool": "get_memory", "arguments": {"key": "k"}},
        {"tool": "list_sessions"},
    )
    assert [result["status"] for result in results] == [400, 404, 403, 404, 200]
    assert results[0]["result"]["details"]["field"] == "purpose"
    assert [result["result"]["success"] for result in results] == [False] * 4 + [True]


async def test_an_empty_batch_has_no_results(agent: httpx.AsyncClient) -> None:
    assert await run(agent) == []


async def test_an_empty_batch_of_the_anonymous_is_refused(stranger: httpx.AsyncClient) -> None:
    response = await stranger.post("/mcp/batch", json={"calls": []})
    assert_error(response, 401, "UNAUTHENTICATED")


async def test_the_anonymous_may_authenticate_in_a_batch_and_nothing_else(
    stranger: httpx.AsyncClient,
) -> None:
    granted, refused = await run(
        stranger,
        {"tool": "authenticate_agent", "arguments": {"agent_id": "a", "api_key": API_KEY}},
        {"tool": "list_sessions"},
    )
    assert granted["status"] == 200
    assert refused["status"] == 401
    (named,) = await run(
        stranger,
        {"tool": "list_sessions", "arguments": {"auth_token": granted["result"]["token"]}},
    )
    assert named["status"] == 200


async def test_a_bad_bearer_refuses_the_batch_unless_it_only_authenticates(server: Server) -> None:
    authenticate = {
        "tool": "authenticate_agent",
        "arguments": {"agent_id": "a", "api_key": API_KEY},
    }
    async with client_of(server, Authorization="Bearer wrong") as client:
        response = await client.post(
            "/mcp/batch", json={"calls": [authenticate, {"tool": "list_sessions"}]}
        )
        assert_error(response, 401, "UNAUTHENTICATED", "Authorization")
        (granted,) = await run(client, authenticate)
    assert granted["status"] == 200


async def test_each_call_counts_for_the_rate_limit(open_agent: OpenClient) -> None:
    async with open_agent(rate_limit="3/hour") as agent:
        results = await run(agent, *[{"tool": "list_sessions"}] * 5)
        response = await agent.post("/mcp/tool/list_sessions")
    assert [result["status"] for result in results] == [200, 200, 200, 429, 429]
    assert results[3]["result"]["details"]["retry_after_s"] >= 1
    assert response.status_code == 429


@pytest.mark.parametrize(
    "body, field",
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b'{"calls": [{"tool": "get_memory", "arguments": {"key": NaN}}]}', "body"),
        (b'{"calls": [{"tool": "get_memory", "arguments": {"key": 1e999}}]}', "calls"),
        (b"{}", "calls"),
        (b'{"calls": null}', "calls"),
        (b'{"calls": {}}', "calls"),
        (b'{"calls": [], "auth_token": "x"}', "auth_token"),
        (b'{"calls": ["list_sessions"]}', "calls.0"),
        (b'{"calls": [{"tool": "list_sessions"}, {"arguments": {}}]}', "calls.1.tool"),
        (b'{"calls": [{"tool": 1}]}', "calls.0.tool"),
        (b'{"calls": [{"tool": "list_sessions", "arguments": []}]}', "calls.0.arguments"),
        (b'{"calls": [{"tool": "list_sessions", "args": {}}]}', "calls.0.args"),
    ],
)
async def test_a_wrong_shape_is_refused_by_name(
    agent: httpx.AsyncClient, body: bytes, field: str
) -> None:
    response = await agent.post("/mcp/batch", content=body)
    assert_error(response, 400, "INVALID_ARGUMENT", field)
    # Words for callers: no class of ours, and those of a call that stands alone.
    error = response.json()["error"]
    assert "instance" not in error
    assert "Field required" not in error


@pytest.mark.parametrize(
    "calls",
    [
        pytest.param([{"tool": "create_session", "arguments": {"purpose": "p"}}] * 101, id="101"),
        pytest.param(
            [{"tool": "create_session", "arguments": {"purpose": "p"}}, {"tool": None}], id="shape"
        ),
    ],
)
async def test_nothing_of_a_refused_batch_is_run(
    agent: httpx.AsyncClient, calls: list[dict[str, Any]]
) -> None:
    response = await agent.post("/mcp/batch", json={"calls": calls})
    assert response.status_code == 400
    assert response.json()["details"]["field"].startswith("calls")
    assert (await call(agent, "list_sessions"))["sessions"] == []


async def test_the_refusal_does_not_repeat_what_was_sent(agent: httpx.AsyncClient) -> None:
    secret = "do-not-repeat-me"
    body = {"calls": [{"tool": {"api_key": secret}, "arguments": secret}]}
    response = await agent.post("/mcp/batch", content=json.dumps(body))
    assert response.status_code == 400
    assert secret not in response.text


async def test_a_batch_is_answered_up_to_a_size_and_what_is_behind_it_is_not_run(
    agent: httpx.AsyncClient,
) -> None:
    session_id = await create_session(agent)
    for _ in range(6):
        await call(agent, "add_message", session_id=session_id, content="x" * 90_000)
    read = {"tool": "get_messages", "arguments": {"session_id": session_id, "limit": 1000}}
    write = {"tool": "set_memory", "arguments": {"key": "k", "value": 1}}
    response = await agent.post("/mcp/batch", json={"calls": [read] * 99 + [write]})
    assert response.status_code == 200
    assert len(response.content) < 4 * 1024 * 1024
    results = response.json()["results"]
    statuses = [result["status"] for result in results]
    assert len(statuses) == 100
    assert statuses == sorted(statuses)
    assert set(statuses) == {200, 413}
    refused = results[-1]["result"]
    assert (refused["code"], refused["retryable"]) == ("CONTENT_TOO_LARGE", True)
    assert refused["suggestion"].startswith("This call was not run")
    assert (await agent.post("/mcp/tool/get_memory", json={"key": "k"})).status_code == 404
    assert (await run(agent, write))[0]["status"] == 200
