"""A server whose system clock is set back or forward: nothing lives longer by that."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.conftest import ServerProcess
from tests.client.conftest import API_KEY, server_environment
from tests.own_clock import OwnClock, build_own_clock

HOUR_S = 3600
WAIT_S = 60


class SteppedServer:
    """A server with a system clock of its own, at the same address after a restart."""

    def __init__(self, directory: Path, clock: OwnClock) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._directory = directory
        self._clock = clock
        self._ahead_s = self._furthest_s = 0
        variables = {"HTTP_PORT": str(port), "JWT_EXPIRES_IN": "60"} | clock.environment
        self._env = server_environment(directory / "data", **variables)
        self.process: ServerProcess | None = None

    def step_back(self) -> None:
        """Set its clock back by an hour."""
        self._ahead_s -= HOUR_S
        self._clock.set_ahead(self._ahead_s)

    def step_forward(self, seconds: int) -> None:
        """Set its clock ahead of where it has ever been."""
        self._ahead_s = self._furthest_s = self._furthest_s + seconds
        self._clock.set_ahead(self._ahead_s)

    def start(self) -> None:
        # Executed: the library that shifts the clock is loaded by a process that begins.
        self.process = ServerProcess([], self._env, self._directory, is_executed=True)
        self.process.wait_for(r"/health")

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
            self.process.kill()

    def restart(self) -> None:
        self.stop()
        self.start()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SteppedServer]:
    """One for all of these tests: each steps from where the one before has left the clock."""
    directory = tmp_path_factory.mktemp("stepped")
    server = SteppedServer(directory, build_own_clock(directory))
    try:
        server.start()
        yield server
    finally:
        server.stop()


class Agent:
    def __init__(self, client: httpx.AsyncClient, agent_id: str) -> None:
        self._client = client
        self._headers = {"X-API-Key": API_KEY, "X-Agent-ID": agent_id}

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        answer = await self._client.post(f"/mcp/tool/{tool}", json=arguments, headers=self._headers)
        body: dict[str, Any] = answer.json()
        return body


@pytest.fixture
async def client(server: SteppedServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=2 * WAIT_S) as client:
        yield client


@pytest.fixture
def alice(client: httpx.AsyncClient) -> Agent:
    return Agent(client, "alice")


@pytest.fixture
def bob(client: httpx.AsyncClient) -> Agent:
    return Agent(client, "bob")


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_lease_ends_in_its_time_though_the_clock_is_set_back(
    alice: Agent, bob: Agent, server: SteppedServer, is_restarted: bool
) -> None:
    name = f"deploy {is_restarted}"
    taken = await alice.call("acquire_lease", name=name, ttl_seconds=3)
    server.step_back()
    if is_restarted:
        server.restart()
    got = await bob.call("acquire_lease", name=name, ttl_seconds=3, wait_seconds=WAIT_S)
    assert (got["acquired"], got["fencing_token"]) == (True, taken["fencing_token"] + 1)
    assert datetime.fromisoformat(got["expires_at"]) > datetime.fromisoformat(taken["expires_at"])


async def test_an_entry_expires_in_its_time_though_the_clock_is_set_back(
    alice: Agent, server: SteppedServer
) -> None:
    await alice.call("set_memory", key="k", value=1, expires_in=2)
    server.step_back()
    async with asyncio.timeout(WAIT_S):
        while (found := await alice.call("get_memory", key="k"))["success"]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # the server's own time passes
    assert found["code"] == "MEMORY_NOT_FOUND"


async def _session(agent: Agent) -> str:
    session_id: str = (await agent.call("create_session", purpose="x"))["session_id"]
    return session_id


async def test_a_message_written_after_a_step_back_is_found_by_the_time_of_the_one_before(
    alice: Agent, server: SteppedServer
) -> None:
    session_id = await _session(alice)
    before = await alice.call("add_message", session_id=session_id, content="before")
    server.step_back()
    await alice.call("add_message", session_id=session_id, content="after")
    page = await alice.call("get_messages", session_id=session_id, start_time=before["timestamp"])
    assert [message["content"] for message in page["messages"]] == ["before", "after"]


async def test_a_step_forward_is_followed_at_once(
    alice: Agent, bob: Agent, server: SteppedServer
) -> None:
    session_id = await _session(alice)
    before = await alice.call("add_message", session_id=session_id, content="before")
    await alice.call("acquire_lease", name="plan", ttl_seconds=60)
    server.step_forward(HOUR_S)
    after = await alice.call("add_message", session_id=session_id, content="after")
    passed = datetime.fromisoformat(after["timestamp"]) - datetime.fromisoformat(
        before["timestamp"]
    )
    assert passed > timedelta(seconds=HOUR_S - 60)
    assert (await bob.call("acquire_lease", name="plan", ttl_seconds=60))["acquired"]


async def test_a_token_does_not_live_again_when_the_clock_is_set_back(
    client: httpx.AsyncClient, alice: Agent, server: SteppedServer
) -> None:
    issued = await alice.call("authenticate_agent", agent_id="alice")
    headers = {"Authorization": f"Bearer {issued['token']}"}

    async def call() -> int:
        return (await client.post("/mcp/tool/get_time", json={}, headers=headers)).status_code

    assert await call() == 200
    server.step_forward(120)
    assert await call() == 401
    server.step_back()
    assert await call() == 401


async def test_the_log_tells_of_a_clock_that_was_set_back(
    server: SteppedServer, alice: Agent
) -> None:
    await alice.call("get_time")
    server.step_back()
    assert server.process is not None
    await asyncio.to_thread(server.process.wait_for, "the system clock was set back")
