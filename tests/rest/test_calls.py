"""POST /mcp/tool/{name}: every status of the contract, and strict JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Message

from shared_context_server.parts import SEARCHES_AT_ONCE
from shared_context_server.rest.calls import BatchEndpoint, ToolEndpoint
from shared_context_server.server import Server
from shared_context_server.tools.dispatch import Dispatcher
from tests.rest.conftest import (
    OpenClient,
    assert_error,
    call,
    client_of,
    create_session,
)
from tests.settings import API_KEY
from tests.storage.builders import BOB
from tests.until import PATIENCE_S


async def test_a_program_that_posts_json_works_as_it_always_did(server: Server) -> None:
    async with client_of(server) as client:
        granted = await call(
            client,
            "authenticate_agent",
            agent_id="program",
            agent_type="script",
            api_key=API_KEY,
            requested_permissions=["read", "write", "admin"],
        )
        assert granted["permissions"] == ["read", "write"]
        client.headers["Authorization"] = f"Bearer {granted['token']}"
        session_id = (await call(client, "create_session", purpose="p", metadata={}))["session_id"]
        added = await call(
            client,
            "add_message",
            session_id=session_id,
            content="TASK ASSIGNMENT: worker-7",
            visibility="public",
            metadata={"task": 7},
        )
        assert isinstance(added["message_id"], int)
        listed = await call(client, "get_messages", session_id=session_id, limit=50)
        assert listed["count"] == 1
        message = listed["messages"][0]
        assert message["sender"] == "program"
        assert message["metadata"] == {"task": 7}
        assert message["seq"] == 1
        found = await call(
            client,
            "search_context",
            session_id=session_id,
            query="TASK ASSIGNMENT: worker-7",
            fuzzy_threshold=60.0,
        )
        assert found["results"][0]["message"] == message
        for value in ("text", 1, 1.5, True, None, [1], {"a": [None]}):
            await call(
                client,
                "set_memory",
                key="k",
                value=value,
                session_id=session_id,
                expires_in=None,
                metadata=None,
            )
            read = await call(client, "get_memory", key="k", session_id=session_id)
            assert read["value"] == value


async def test_an_empty_body_means_no_arguments(agent: httpx.AsyncClient) -> None:
    response = await agent.post("/mcp/tool/list_sessions")
    assert response.status_code == 200
    assert response.json()["sessions"] == []


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_json_is_read_whatever_the_content_type_says(
    agent: httpx.AsyncClient, content_type: str
) -> None:
    response = await agent.post(
        "/mcp/tool/create_session",
        content=b'{"purpose": "p"}',
        headers={"Content-Type": content_type},
    )
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"


async def test_a_body_that_comes_in_pieces_is_one_body(agent: httpx.AsyncClient) -> None:
    async def pieces() -> Any:
        for piece in (b'{"pur', b'pose": ', b'"p"}'):
            yield piece

    response = await agent.post("/mcp/tool/create_session", content=pieces())
    assert response.status_code == 200


BROKEN = {
    "not json": b"purpose=p",
    "truncated": b'{"purpose": "p"',
    "trailing": b'{"purpose": "p"} x',
    "blank": b"   ",
    "NaN": b'{"purpose": NaN}',
    "Infinity": b'{"purpose": "p", "metadata": {"a": Infinity}}',
    "-Infinity": b'{"purpose": "p", "metadata": {"a": -Infinity}}',
    "lone surrogate": b'{"purpose": "\\ud800"}',
    "lone surrogate in a key": b'{"\\udfff": 1}',
    "surrogate bytes": b'{"purpose": "\xed\xa0\x80"}',
    "invalid UTF-8": b'{"purpose": "\xff"}',
    "UTF-16": '{"purpose": "p"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"purpose": "p"}',
    "control character": b'{"purpose": "\x01"}',
    "deep": b'{"purpose": "p", "metadata": {"a": ' + b"[" * 5000 + b"]" * 5000 + b"}}",
    "deep and open": b"[" * 40_000,
    "array": b"[]",
    "string": b'"purpose"',
    "number": b"1",
    "null": b"null",
    "infinite document": b"1e999",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
async def test_a_body_that_is_no_strict_json_object_is_refused(
    agent: httpx.AsyncClient, body: bytes
) -> None:
    response = await agent.post("/mcp/tool/create_session", content=body)
    assert_error(response, 400, "INVALID_ARGUMENT", "body")


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"1E+400", b"1" + b"0" * 400 + b".0"])
async def test_a_number_out_of_range_is_refused_by_its_argument(
    agent: httpx.AsyncClient, number: bytes
) -> None:
    body = b'{"purpose": "Infinity", "metadata": {"a": [%b]}}' % number
    response = await agent.post("/mcp/tool/create_session", content=body)
    assert_error(response, 400, "INVALID_ARGUMENT", "metadata")


@pytest.mark.parametrize(
    "tool, argument, further",
    [
        ("create_session", "metadata", {"purpose": "p"}),
        ("set_memory", "value", {"key": "k"}),
        ("set_memory", "metadata", {"key": "k", "value": 1}),
    ],
)
async def test_json_is_nested_as_deep_as_it_can_be_read_again(
    agent: httpx.AsyncClient, tool: str, argument: str, further: dict[str, Any]
) -> None:
    for depth, status in ((100, 200), (101, 400), (190, 400)):
        value: Any = 1
        for level in range(depth):
            value = {"a": value} if level % 2 else [value]
        if isinstance(value, list):
            value = {"a": value[0]}
        response = await agent.post(f"/mcp/tool/{tool}", json={argument: value, **further})
        assert response.status_code == status, depth
        if status == 400:
            assert_error(response, 400, "INVALID_ARGUMENT", argument)


async def test_wide_json_is_not_deep(agent: httpx.AsyncClient) -> None:
    await call(agent, "set_memory", key="k", value=[{}] * 1000)
    assert (await call(agent, "get_memory", key="k"))["value"] == [{}] * 1000


@pytest.mark.parametrize("path", ["/mcp/tool/authenticate_agent", "/mcp/batch"])
async def test_a_body_of_very_many_values_is_too_large(agent: httpx.AsyncClient, path: str) -> None:
    response = await agent.post(path, content=b'{"x":[' + b"[]," * 30_000 + b"[]]}")
    error = assert_error(response, 413, "CONTENT_TOO_LARGE", "body")
    assert error["details"]["limit_values"] == 50_000


async def test_very_many_signs_in_a_text_are_no_values(agent: httpx.AsyncClient) -> None:
    session_id = await create_session(agent)
    await call(agent, "add_message", session_id=session_id, content='[{",\\' * 20_000)


async def test_an_error_lists_few_of_very_many_unknown_arguments(agent: httpx.AsyncClient) -> None:
    body = {f"unknown_{number}": 1 for number in range(40_000)}
    response = await agent.post("/mcp/tool/create_session", json=body)
    error = assert_error(response, 400, "INVALID_ARGUMENT", "unknown_0")
    assert len(error["details"]["errors"]) == 10


async def test_the_word_infinity_and_large_integers_are_fine(agent: httpx.AsyncClient) -> None:
    metadata = {"Infinity": ["-Infinity", 2**63 - 1, -(2**63), 1e300, str(10**30)]}
    session_id = await create_session(agent, metadata=metadata)
    session = await call(agent, "get_session", session_id=session_id)
    assert session["session"]["metadata"] == metadata


@pytest.mark.parametrize("digits", [b"9223372036854775808", b"-9223372036854775809", b"1" * 5000])
@pytest.mark.parametrize(
    "tool, argument, further",
    [
        ("create_session", b"metadata", b'"purpose": "p"'),
        ("set_memory", b"value", b'"key": "k"'),
        ("set_memory", b"metadata", b'"key": "k", "value": 1'),
    ],
)
async def test_an_integer_beyond_64_bits_is_refused_by_name(
    agent: httpx.AsyncClient, tool: str, argument: bytes, further: bytes, digits: bytes
) -> None:
    body = b'{%b, "%b": {"a": [1, %b]}}' % (further, argument, digits)
    response = await agent.post(f"/mcp/tool/{tool}", content=body)
    assert_error(response, 400, "INVALID_ARGUMENT", argument.decode())
    assert "64 bits" in response.json()["error"]


@pytest.mark.parametrize(
    "arguments, field",
    [
        ({}, "purpose"),
        ({"purpose": None}, "purpose"),
        ({"purpose": 1}, "purpose"),
        ({"purpose": ""}, "purpose"),
        ({"purpose": "p" * 501}, "purpose"),
        ({"purpose": "p", "access": "secret"}, "access"),
        ({"purpose": "p", "metadata": []}, "metadata"),
        ({"purpose": "p", "participants": ["ok", ""]}, "participants"),
        ({"purpose": "p", "sorpose": 1}, "sorpose"),
    ],
)
async def test_400_names_the_wrong_argument(
    agent: httpx.AsyncClient, arguments: dict[str, Any], field: str
) -> None:
    response = await agent.post("/mcp/tool/create_session", json=arguments)
    assert_error(response, 400, "INVALID_ARGUMENT", field)


@pytest.mark.parametrize(
    "time",
    ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", 1e300, -(10**400), "now", True, []],
)
async def test_400_for_a_time_that_is_none(agent: httpx.AsyncClient, time: Any) -> None:
    session_id = await create_session(agent)
    response = await agent.post(
        "/mcp/tool/get_messages", json={"session_id": session_id, "start_time": time}
    )
    assert_error(response, 400, "INVALID_ARGUMENT", "start_time")


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "0001-01-01", 0, -62135596800, 1.5])
async def test_any_time_of_the_calendar_filters(agent: httpx.AsyncClient, time: Any) -> None:
    session_id = await create_session(agent)
    await call(agent, "add_message", session_id=session_id, content="c")
    for tool, further in (("get_messages", {}), ("search_context", {"query": "c"})):
        here = {"session_id": session_id, **further}
        assert (await call(agent, tool, **here, start_time=time))["count"] == 1
        assert (await call(agent, tool, **here, end_time=time))["count"] == 0


async def test_an_unknown_visibility_is_no_ignored_filter(agent: httpx.AsyncClient) -> None:
    session_id = await create_session(agent)
    response = await agent.post(
        "/mcp/tool/get_messages", json={"session_id": session_id, "visibility": "secret"}
    )
    assert_error(response, 400, "INVALID_ARGUMENT", "visibility")


async def test_401_for_the_anonymous_says_how_to_identify(stranger: httpx.AsyncClient) -> None:
    response = await stranger.post("/mcp/tool/list_sessions", json={})
    body = assert_error(response, 401, "UNAUTHENTICATED")
    assert response.headers["www-authenticate"] == "Bearer"
    for way in ("Authorization: Bearer", "X-API-Key", "auth_token", "authenticate_agent"):
        assert way in body["suggestion"]


async def test_401_for_a_bad_auth_token_beside_a_valid_key(agent: httpx.AsyncClient) -> None:
    response = await agent.post("/mcp/tool/list_sessions", json={"auth_token": "agt_wrong"})
    assert_error(response, 401, "UNAUTHENTICATED", "auth_token")


async def test_an_expired_bearer_does_not_stand_in_the_way_of_authenticating(
    server: Server,
) -> None:
    async with client_of(server, Authorization="Bearer eyJhbGciOiJub25lIn0.e30.") as client:
        refused = await client.post("/mcp/tool/list_sessions", json={})
        assert_error(refused, 401, "UNAUTHENTICATED", "Authorization")
        granted = await call(client, "authenticate_agent", agent_id="a", api_key=API_KEY)
    assert granted["token"]


async def test_403_for_a_tool_of_admins(agent: httpx.AsyncClient) -> None:
    response = await agent.post("/mcp/tool/get_audit_log", json={})
    assert_error(response, 403, "PERMISSION_DENIED")
    assert "creator" not in response.json()["suggestion"]


@pytest.mark.parametrize(
    "tool, arguments, code, field",
    [
        ("get_session", {"session_id": "session_0"}, "SESSION_NOT_FOUND", "session_id"),
        ("get_memory", {"key": "k"}, "MEMORY_NOT_FOUND", "key"),
        ("make_coffee", {}, "TOOL_NOT_FOUND", None),
        ("make coffee é", {}, "TOOL_NOT_FOUND", None),
    ],
)
async def test_404_says_what_is_missing(
    agent: httpx.AsyncClient, tool: str, arguments: dict[str, Any], code: str, field: str | None
) -> None:
    response = await agent.post(f"/mcp/tool/{tool}", json=arguments)
    assert_error(response, 404, code, field)


async def test_404_for_a_parent_in_no_session(agent: httpx.AsyncClient) -> None:
    session_id = await create_session(agent)
    response = await agent.post(
        "/mcp/tool/add_message",
        json={"session_id": session_id, "content": "c", "parent_message_id": 12345},
    )
    assert_error(response, 404, "MESSAGE_NOT_FOUND", "parent_message_id")


async def test_409_for_a_closed_session(agent: httpx.AsyncClient) -> None:
    session_id = await create_session(agent)
    await call(agent, "close_session", session_id=session_id)
    response = await agent.post(
        "/mcp/tool/add_message", json={"session_id": session_id, "content": "c"}
    )
    assert_error(response, 409, "SESSION_CLOSED", "session_id")


async def test_409_for_a_stale_version_has_the_current_state(agent: httpx.AsyncClient) -> None:
    await call(agent, "set_memory", key="k", value="first")
    response = await agent.post(
        "/mcp/tool/set_memory", json={"key": "k", "value": "other", "expected_version": 0}
    )
    body = assert_error(response, 409, "CONFLICT", "expected_version")
    assert "first" in str(body["details"])


async def test_413_for_a_content_over_its_limit(agent: httpx.AsyncClient) -> None:
    session_id = await create_session(agent)
    response = await agent.post(
        "/mcp/tool/add_message", json={"session_id": session_id, "content": "é" * 100_001}
    )
    assert_error(response, 413, "CONTENT_TOO_LARGE", "content")


async def test_413_for_a_body_over_its_limit(open_agent: OpenClient) -> None:
    async with open_agent(max_body_bytes=2048) as agent:
        response = await agent.post("/mcp/tool/create_session", content=b" " * 2049)
        assert_error(response, 413, "CONTENT_TOO_LARGE")
        response = await agent.post("/mcp/tool/create_session", json={"purpose": "p"})
        assert response.status_code == 200


async def test_429_says_when_to_come_back(open_agent: OpenClient) -> None:
    async with open_agent(rate_limit="2/hour") as agent:
        for _ in range(2):
            await call(agent, "list_sessions")
        response = await agent.post("/mcp/tool/list_sessions", json={})
    body = assert_error(response, 429, "RATE_LIMITED")
    assert body["retryable"] is True
    assert 1 <= int(response.headers["retry-after"]) <= 3600


async def test_broken_json_counts_for_the_rate_limit(open_agent: OpenClient) -> None:
    async with open_agent(rate_limit="1/hour") as agent:
        assert (await agent.post("/mcp/tool/list_sessions", content=b"[")).status_code == 400
        assert (await agent.post("/mcp/tool/list_sessions", content=b"[")).status_code == 429


async def test_503_while_the_storage_does_not_answer(
    server: Server, agent: httpx.AsyncClient
) -> None:
    await server.services.store.maintenance.aclose()
    response = await agent.post("/mcp/tool/list_sessions", json={})
    body = assert_error(response, 503, "UNAVAILABLE")
    assert body["retryable"] is True
    assert int(response.headers["retry-after"]) >= 1


async def test_a_tool_is_not_read_with_get(agent: httpx.AsyncClient) -> None:
    response = await agent.get("/mcp/tool/list_sessions")
    assert_error(response, 405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("make_endpoint", [ToolEndpoint, BatchEndpoint])
async def test_nothing_is_run_for_a_client_that_hung_up(
    server: Server, make_endpoint: Callable[[Dispatcher], ASGIApp]
) -> None:
    endpoint = make_endpoint(server.dispatcher)
    parts: list[Message] = [
        {"type": "http.request", "body": b'{"purpose":', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return parts.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await endpoint({"path_params": {"name": "create_session"}}, receive, send)
    assert sent == []
    assert parts == []


async def test_a_search_stops_when_its_client_hangs_up(server: Server) -> None:
    body = {"query": "needle", "auth_token": await make_token(server)}
    parts: asyncio.Queue[Message] = asyncio.Queue()
    parts.put_nowait({"type": "http.request", "body": json.dumps(body).encode()})
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    endpoint = ToolEndpoint(server.dispatcher)
    async with AsyncExitStack() as stack:
        for _ in range(SEARCHES_AT_ONCE):  # so the search waits for its turn
            await stack.enter_async_context(server.services.search_turns.take(BOB))
        scope = {"path_params": {"name": "search_context"}}
        answering = asyncio.create_task(endpoint(scope, parts.get, send))
        await asyncio.sleep(0)
        parts.put_nowait({"type": "http.disconnect"})
        async with asyncio.timeout(PATIENCE_S):
            await answering
    assert sent == []


async def make_token(server: Server) -> str:
    async with client_of(server) as client:
        granted = await call(client, "authenticate_agent", agent_id="program", api_key=API_KEY)
    return str(granted["token"])


@pytest.mark.parametrize(
    "tool, field, arguments",
    [
        ("create_session", "purpose", {}),
        ("add_message", "content", {"session_id": "s"}),
        ("add_message", "idempotency_key", {"session_id": "s", "content": "c"}),
        ("set_memory", "key", {"value": 1}),
        ("acquire_lease", "name", {}),
        ("search_context", "query", {"session_id": "s"}),
        ("get_session", "session_id", {}),
    ],
)
async def test_text_with_u_0000_is_refused_by_name(
    agent: httpx.AsyncClient, tool: str, field: str, arguments: dict[str, object]
) -> None:
    response = await agent.post(f"/mcp/tool/{tool}", json=arguments | {field: "a\0b"})
    assert_error(response, 400, "INVALID_ARGUMENT", field)


async def test_json_values_may_hold_u_0000(agent: httpx.AsyncClient) -> None:
    for value in ("a\0b", {"a\0": ["\0"]}):
        await call(agent, "set_memory", key="k", value=value)
        assert (await call(agent, "get_memory", key="k"))["value"] == value
