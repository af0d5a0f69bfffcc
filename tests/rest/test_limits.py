"""Limits on requests, wrong credentials, streams and waiting calls, over every HTTP surface."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared_context_server.server import Server, open_server
from tests.rest.conftest import (
    BASE_URL,
    assert_error,
    call,
    client_of,
    create_session,
)
from tests.settings import API_KEY, make_settings
from tests.until import PATIENCE_S, until

MCP = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": "2025-06-18",
}


@asynccontextmanager
async def opened(directory: Path, **overrides: Any) -> AsyncIterator[Server]:
    async with open_server(make_settings(directory, **overrides)) as server:
        yield server


def from_address(server: Server, address: str, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(
            server.app, raise_app_exceptions=False, client=(address, 50_000)
        ),
        base_url=BASE_URL,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


async def rpc(client: httpx.AsyncClient, method: str, **params: Any) -> httpx.Response:
    message = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    return await client.post("/mcp", json=message, headers=MCP)


# Requests


async def test_a_key_has_one_limit_whatever_agent_it_names(tmp_path: Path) -> None:
    async with opened(tmp_path, rate_limit="3/hour") as server:
        statuses = []
        for number in range(5):
            async with client_of(server, X_API_Key=API_KEY, X_Agent_ID=f"a{number}") as client:
                statuses.append((await client.post("/mcp/tool/list_sessions")).status_code)
        assert statuses == [200, 200, 200, 429, 429]


async def test_the_tokens_of_a_key_count_with_it(tmp_path: Path) -> None:
    async with opened(tmp_path, rate_limit="2/hour") as server:
        async with client_of(server) as stranger:
            answer = await call(stranger, "authenticate_agent", agent_id="bob", api_key=API_KEY)
        async with client_of(server, Authorization=f"Bearer {answer['token']}") as bob:
            await call(bob, "list_sessions")
        async with client_of(server, X_API_Key=API_KEY) as alice:
            await call(alice, "list_sessions")
            assert (await alice.post("/mcp/tool/list_sessions")).status_code == 429
        async with client_of(server) as nobody:
            # As an argument it is the same credential.
            response = await nobody.post(
                "/mcp/tool/list_sessions", json={"auth_token": answer["token"]}
            )
            assert_error(response, 429, "RATE_LIMITED")


@pytest.mark.parametrize(
    "path", ["/events", "/metrics", "/docs", "/openapi.json", "/nowhere", "/mcp/tool/list_sessions"]
)
async def test_every_route_but_the_probes_is_counted(tmp_path: Path, path: str) -> None:
    async with opened(tmp_path, rate_limit="1/hour") as server, client_of(server) as client:
        assert (await client.get(path)).status_code != 429
        response = await client.get(path)
        assert_error(response, 429, "RATE_LIMITED")
        assert int(response.headers["retry-after"]) >= 1
        for probe in ("/health", "/ready"):
            assert (await client.get(probe)).status_code == 200


@pytest.mark.parametrize(
    "method, params",
    [
        ("tools/list", {}),
        ("resources/read", {"uri": "clock://now"}),
        ("prompts/list", {}),
        ("prompts/get", {"name": "catch_up", "arguments": {"session_id": "s"}}),
        ("completion/complete", {}),
        ("ping", {}),
    ],
)
async def test_every_request_over_mcp_is_counted(
    tmp_path: Path, method: str, params: dict[str, Any]
) -> None:
    async with (
        opened(tmp_path, rate_limit="1/hour") as server,
        client_of(server, X_API_Key=API_KEY) as client,
    ):
        assert (await rpc(client, method, **params)).status_code != 429
        response = await rpc(client, method, **params)
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
        body = response.json()
        assert body["id"] == 7
        assert body["error"]["data"]["code"] == "RATE_LIMITED"


async def test_a_tool_call_over_mcp_is_told_so_in_its_result(tmp_path: Path) -> None:
    async with (
        opened(tmp_path, rate_limit="1/hour") as server,
        client_of(server, X_API_Key=API_KEY) as client,
    ):
        for _ in range(2):
            response = await rpc(client, "tools/call", name="list_sessions", arguments={})
        assert response.status_code == 200
        result = response.json()["result"]
        assert result["isError"] is True
        assert json.loads(result["content"][0]["text"])["code"] == "RATE_LIMITED"
        assert result["structuredContent"]["code"] == "RATE_LIMITED"
        assert int(response.headers["retry-after"]) >= 1


async def test_a_call_with_a_wrong_credential_over_mcp_has_no_result(tmp_path: Path) -> None:
    async with (
        opened(tmp_path, failed_auth_limit="1/hour") as server,
        client_of(server, X_API_Key="wrong-key-0123456789") as client,
    ):
        for status, code in ((401, "UNAUTHENTICATED"), (429, "RATE_LIMITED")):
            response = await rpc(client, "tools/call", name="list_sessions", arguments={})
            assert response.json()["id"] == 7
            assert (response.status_code, response.json()["error"]["data"]["code"]) == (
                status,
                code,
            )


async def test_hundreds_of_parallel_calls_of_a_few_agents_pass(server: Server) -> None:
    async with client_of(server, X_API_Key=API_KEY, X_Agent_ID="busy") as client:
        answers = await asyncio.gather(
            *(client.post("/mcp/tool/list_sessions") for _ in range(400))
        )
        assert {answer.status_code for answer in answers} == {200}


# Wrong credentials

WRONG: list[Callable[[int], dict[str, str]]] = [
    lambda number: {"X-API-Key": f"wrong-{number}"},
    lambda number: {"Authorization": f"Bearer wrong.{number}.x"},
    lambda number: {"X-API-Key": "wrong", "X-Agent-ID": f"agent-{number}"},
    lambda number: {"X-API-Key": "wrong", "X-Forwarded-For": f"198.51.100.{number}"},
]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("path", ["/mcp/tool/list_sessions", "/events", "/metrics", "/mcp"])
async def test_wrong_credentials_meet_429(
    tmp_path: Path, path: str, wrong: Callable[[int], dict[str, str]]
) -> None:
    async with (
        opened(tmp_path, failed_auth_limit="3/hour") as server,
        from_address(server, "192.0.2.1") as attacker,
        from_address(server, "192.0.2.1", X_API_Key=API_KEY) as neighbour,
    ):
        statuses = [
            (await attacker.get(path, headers=wrong(number))).status_code for number in range(5)
        ]
        assert statuses == [401, 401, 401, 429, 429]
        told = server.metrics.render().decode()
        assert 'scs_failed_authentications_total{answer="limited"} 2.0' in told
        await call(neighbour, "list_sessions")  # who shares the address is not locked out
        async with from_address(server, "192.0.2.2") as other:
            assert (await other.get(path, headers=wrong(0))).status_code == 401


@pytest.mark.parametrize(
    "tool, arguments",
    [
        ("authenticate_agent", {"agent_id": "a", "api_key": "wrong"}),
        ("list_sessions", {"auth_token": "a.b.c"}),
        ("list_sessions", {"auth_token": "agt_wrong"}),
    ],
)
async def test_wrong_credentials_as_arguments_meet_429_in_batches_too(
    tmp_path: Path, tool: str, arguments: dict[str, str]
) -> None:
    async with opened(tmp_path, failed_auth_limit="2/hour") as server, client_of(server) as client:
        calls = {"calls": [{"tool": tool, "arguments": arguments}] * 2}
        results = (await client.post("/mcp/batch", json=calls)).json()["results"]
        assert [result["status"] for result in results] == [401, 401]
        response = await client.post(f"/mcp/tool/{tool}", json=arguments)
        assert_error(response, 429, "RATE_LIMITED")


async def test_a_missing_credential_is_not_a_wrong_one(tmp_path: Path) -> None:
    async with opened(tmp_path, failed_auth_limit="1/hour") as server, client_of(server) as client:
        for _ in range(3):
            assert (await client.post("/mcp/tool/list_sessions")).status_code == 401


# Streams and waiting calls


def waiters(server: Server, count: int) -> Callable[[], bool]:
    return lambda: server.services.bus.subscriber_count == count


async def test_an_agent_cannot_take_all_places_of_those_who_wait(tmp_path: Path) -> None:
    async with opened(
        tmp_path, max_streams=10, max_streams_per_agent=2, max_streams_per_key=3
    ) as server:
        clients = [
            client_of(server, X_API_Key=API_KEY, X_Agent_ID=name)
            for name in ("alice", "bob", "eve")
        ]
        alice, bob, eve = clients
        session_id = await create_session(alice)
        wait = {"session_id": session_id, "after_seq": 0, "timeout_seconds": 30}
        waiting = [
            asyncio.create_task(client.post("/mcp/tool/wait_for_messages", json=wait))
            for client in (alice, alice, bob)
        ]
        await until(waiters(server, 3))
        for client in (alice, eve):  # her own cap, and that of the key under a fresh name
            response = await client.post("/mcp/tool/wait_for_messages", json=wait)
            assert_error(response, 429, "RATE_LIMITED")
            assert int(response.headers["retry-after"]) >= 1
            assert_error(await client.get("/events"), 429, "RATE_LIMITED")
        lease = {"name": "l", "session_id": session_id, "wait_seconds": 5}
        assert_error(await eve.post("/mcp/tool/acquire_lease", json=lease), 429, "RATE_LIMITED")
        await call(bob, "add_message", session_id=session_id, content="go on")
        assert {(await task).status_code for task in waiting[:2]} == {200}
        waiting[2].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await until(waiters(server, 0))
        lease["wait_seconds"] = 0
        await call(eve, "acquire_lease", **lease)
        for client in clients:
            await client.aclose()


# MCP sessions

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "c", "version": "1"},
    },
}


BOTH_FORMS = "application/json, text/event-stream"


async def open_mcp_session(client: httpx.AsyncClient, accept: str = BOTH_FORMS) -> httpx.Response:
    headers = {"Accept": accept}
    return await client.post("/mcp", json=INITIALIZE, headers=headers)


async def test_a_caller_has_so_many_mcp_sessions_and_ends_one_for_another(tmp_path: Path) -> None:
    async with (
        opened(tmp_path, mcp_sessions="stateful", max_mcp_sessions_per_caller=2) as server,
        from_address(server, "192.0.2.1") as nobody,
        from_address(server, "192.0.2.2") as other,
        from_address(server, "192.0.2.1", X_API_Key=API_KEY, X_Agent_ID="bob") as bob,
    ):
        for client in (nobody, bob):
            first, second, third = [await open_mcp_session(client) for _ in range(3)]
            assert (first.status_code, second.status_code, third.status_code) == (200, 200, 429)
            assert third.json()["error"]["data"]["code"] == "RATE_LIMITED"
            assert int(third.headers["retry-after"]) >= 1
        assert (await open_mcp_session(other)).status_code == 200
        session = {"Mcp-Session-Id": first.headers["mcp-session-id"]}
        assert (await bob.delete("/mcp", headers=session)).status_code == 200
        assert (await open_mcp_session(bob)).status_code == 200


@pytest.mark.parametrize("accept", [BOTH_FORMS, "application/json"])
async def test_all_mcp_sessions_together_have_a_cap_whatever_form_they_are_answered_in(
    tmp_path: Path, accept: str
) -> None:
    async with (
        opened(tmp_path, mcp_sessions="stateful", max_mcp_sessions=1) as server,
        from_address(server, "192.0.2.1") as one,
        from_address(server, "192.0.2.2") as other,
    ):
        opening = await open_mcp_session(one, accept)
        for form in (BOTH_FORMS, "application/json"):
            refused = await open_mcp_session(other, form)
            assert_error(refused, 503, "UNAVAILABLE")
            assert refused.json()["id"] == 1
            assert int(refused.headers["retry-after"]) >= 1
        session = {"Mcp-Session-Id": opening.headers["mcp-session-id"], "Accept": accept}
        assert (await one.delete("/mcp", headers=session)).status_code == 200
        assert (await open_mcp_session(other, accept)).status_code == 200


async def test_neither_a_key_nor_the_anonymous_take_the_mcp_sessions_of_all(tmp_path: Path) -> None:
    async with opened(tmp_path, mcp_sessions="stateful", max_mcp_sessions=8) as server:
        for number in range(7):
            status = 200 if number < 6 else 429  # three quarters of eight
            name = {"X_API_Key": API_KEY, "X_Agent_ID": f"agent-{number}"}
            async with from_address(server, "192.0.2.1", **name) as agent:
                assert (await open_mcp_session(agent)).status_code == status
        async with from_address(server, "192.0.2.1") as nobody:
            assert (await open_mcp_session(nobody)).status_code == 200


async def test_an_mcp_session_without_use_ends(tmp_path: Path) -> None:
    async with (
        opened(
            tmp_path, mcp_sessions="stateful", mcp_session_idle=1, max_mcp_sessions_per_caller=1
        ) as server,
        client_of(server, X_API_Key=API_KEY) as client,
    ):
        opening = await open_mcp_session(client)
        async with asyncio.timeout(PATIENCE_S):
            # Asking for another one does not use the first.
            while (await open_mcp_session(client)).status_code == 429:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        session = {"Mcp-Session-Id": opening.headers["mcp-session-id"]}
        ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
        assert (await client.post("/mcp", json=ping, headers=MCP | session)).status_code == 404
