"""Liveness, readiness and metrics."""

from __future__ import annotations

import asyncio

import anyio
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared_context_server.errors import Unavailable
from shared_context_server.rest.probes import Readiness
from shared_context_server.server import Server
from tests.rest.conftest import (
    OpenClient,
    assert_error,
    call,
    client_of,
    create_session,
)
from tests.settings import ADMIN_API_KEY, API_KEY, JWT_SECRET_KEY


class Pingable:
    """A storage as far as readiness goes: `ping` answers once the test says so."""

    def __init__(self) -> None:
        self.maintenance = self  # the port that is asked
        self.pings = 0
        self.failure: Exception | None = None
        self.may_answer = asyncio.Event()

    async def ping(self) -> None:
        self.pings += 1
        await self.may_answer.wait()
        if self.failure is not None:
            raise self.failure


def samples(text: str) -> dict[str, float]:
    """The value of each sample, by its name and the values of its labels in the labels' order."""
    return {
        " ".join(
            [sample.name, *(value for _, value in sorted(sample.labels.items()))]
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_a_server_that_works_is_alive_and_ready_for_everyone(
    server: Server, path: str
) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"X_API_Key": "wrong"}):
        async with client_of(server, **headers) as client:
            response = await client.get(path)
        assert response.status_code == 200
        assert response.json()["success"] is True


async def test_a_server_without_its_storage_is_alive_and_not_ready(
    server: Server, stranger: httpx.AsyncClient
) -> None:
    await server.services.store.maintenance.aclose()
    response = await stranger.get("/ready")
    body = assert_error(response, 503, "UNAVAILABLE")
    assert body["retryable"] is True
    assert int(response.headers["retry-after"]) >= 1
    assert (await stranger.get("/health")).status_code == 200


async def test_many_who_ask_at_once_cost_one_ping() -> None:
    store = Pingable()
    readiness = Readiness(store, fresh_s=60)  # type: ignore[arg-type]
    asking = [asyncio.create_task(readiness.check()) for _ in range(50)]
    await anyio.wait_all_tasks_blocked()
    store.may_answer.set()
    await asyncio.gather(*asking)
    assert store.pings == 1
    await readiness.check()
    assert store.pings == 1, "an answer counts for a while"


async def test_an_answer_counts_for_a_while_only() -> None:
    store = Pingable()
    store.may_answer.set()
    readiness = Readiness(store, fresh_s=-1)  # type: ignore[arg-type]
    for asked in range(1, 4):
        await readiness.check()
        assert store.pings == asked


async def test_a_storage_that_hangs_is_not_ready_until_it_answers() -> None:
    store = Pingable()
    readiness = Readiness(store, ping_timeout_s=0.01)  # type: ignore[arg-type]
    for _ in range(3):
        with pytest.raises(Unavailable):
            await readiness.check()
    assert store.pings == 1, "the ping that hangs is not repeated"
    store.may_answer.set()
    await anyio.wait_all_tasks_blocked()  # but for the ping, which ends
    await readiness.check()


async def test_a_ping_that_breaks_is_unavailable_and_tried_again() -> None:
    store = Pingable()
    store.may_answer.set()
    readiness = Readiness(store)  # type: ignore[arg-type]
    for failure in (OSError("disk"), Unavailable()):
        store.failure = failure
        with pytest.raises(Unavailable):
            await readiness.check()
    store.failure = None
    await readiness.check()


async def test_metrics_count_calls_and_show_gauges(
    agent: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    session_id = await create_session(agent)
    for _ in range(3):
        await call(agent, "add_message", session_id=session_id, content="c")
    await agent.post("/mcp/tool/add_message", json={})
    await agent.post("/mcp/tool/no-such-tool-1")
    await agent.post("/mcp/tool/no-such-tool-2")
    await stranger.post("/mcp/tool/list_sessions")
    await call(agent, "list_agents")
    response = await agent.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = samples(response.text)
    assert found["mcp_requests_total 200 add_message"] == 3
    assert found["mcp_requests_total 400 add_message"] == 1
    assert found["mcp_requests_total 404 unknown"] == 2
    assert found["mcp_requests_total 401 list_sessions"] == 1
    assert found["mcp_request_duration_seconds_count add_message"] == 4
    assert found["mcp_active_sessions"] == 1
    assert found["mcp_active_agents"] == 1
    assert {"scs_writer_queue_depth", "scs_postgres_connections"} & found.keys()


async def test_metrics_need_a_key_that_reads(server: Server, stranger: httpx.AsyncClient) -> None:
    response = await stranger.get("/metrics")
    assert_error(response, 401, "UNAUTHENTICATED")
    granted = await call(
        stranger,
        "authenticate_agent",
        agent_id="writer",
        api_key=API_KEY,
        requested_permissions=["write"],
    )
    async with client_of(server, Authorization=f"Bearer {granted['token']}") as writer:
        assert_error(await writer.get("/metrics"), 403, "PERMISSION_DENIED")


async def test_metrics_are_public_by_setting(open_agent: OpenClient) -> None:
    async with open_agent(metrics_public=True) as client:
        del client.headers["X-API-Key"]
        assert (await client.get("/metrics")).status_code == 200


async def test_metrics_are_readable_without_the_storage(
    server: Server, agent: httpx.AsyncClient
) -> None:
    await call(agent, "list_sessions")
    await server.services.store.maintenance.aclose()
    response = await agent.get("/metrics")
    assert response.status_code == 200
    found = samples(response.text)
    assert found["mcp_requests_total 200 list_sessions"] == 1
    assert found["mcp_active_sessions"] != found["mcp_active_sessions"], "unknown is NaN"


async def test_metrics_hold_no_credential(server: Server, agent: httpx.AsyncClient) -> None:
    granted = await call(agent, "authenticate_agent", agent_id="worker-7", api_key=API_KEY)
    secrets = (API_KEY, ADMIN_API_KEY, JWT_SECRET_KEY, granted["token"], granted["agent_handle"])
    for secret in secrets:
        await agent.post(f"/mcp/tool/{secret}", json={"auth_token": secret})
        await agent.post("/mcp/tool/get_memory", json={"key": secret, secret: secret})
    text = (await agent.get("/metrics")).text
    assert not [secret for secret in secrets if secret in text]
