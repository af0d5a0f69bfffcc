"""Several servers on one database that a test takes away from them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from shared_context_server.settings import Settings
from tests.cli.conftest import ServerProcess
from tests.postgres import Cluster, open_cluster

API_KEY = "faults-api-key-0123456789"
ROLE = "scs"
PASSWORD = "faults-password"
DATABASE = "shared_context"
# POSTGRES_TIMEOUT: a call has its answer within it, and another time it for who is calling.
TIMEOUT_S = 1.5
SLACK_S = 15.0  # for a machine that is very busy: what hangs takes longer
PATIENCE_S = 40.0


@dataclass
class Replicas:
    """Servers with one database, of which nothing is left waiting or broken between tests."""

    cluster: Cluster
    directory: Path
    servers: list[ServerProcess] = field(default_factory=list)

    @property
    def url(self) -> str:
        host = f"127.0.0.1:{self.cluster.port}"
        return f"postgresql://{ROLE}:{PASSWORD}@{host}/{DATABASE}"

    def start(self, **variables: str) -> ServerProcess:
        """One more server, not waited for."""
        ours = {name.upper() for name in Settings.model_fields} | {"ENV_FILE"}
        env = {name: value for name, value in os.environ.items() if name.upper() not in ours}
        env |= {
            "DATA_DIR": str(self.directory / "data"),
            "HOME": str(self.directory),
            "DATABASE_URL": self.url,
            "POSTGRES_TIMEOUT": str(TIMEOUT_S),
            "API_KEY": API_KEY,
            "ADMIN_API_KEY": "faults-admin-key-0123456789",
            "JWT_SECRET_KEY": "faults-jwt-secret-0123456789abcdef",
            "METRICS_PUBLIC": "true",
            "HTTP_PORT": "0",
        }
        return ServerProcess([], env | variables, self.directory)

    def prepare(self) -> None:
        """Make the role and its database: a role, since superusers have no connection limit."""
        self.cluster.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
        self.cluster.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")

    def serve(self, count: int) -> None:
        self.servers += [self.start() for _ in range(count)]
        for server in self.servers[-count:]:
            server.url = server.wait_for(r"(http://[^/\s\"]+)/health")[1]

    async def recover(self) -> float:
        """Wait until every server says it is ready; the seconds that took."""
        started = time.monotonic()
        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
            for server in self.servers:
                await until(lambda server=server: _is_ready(client, server.url))
        return time.monotonic() - started

    async def query(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        """As the superuser."""
        connection = await asyncpg.connect(self.cluster.url(DATABASE))
        try:
            rows: list[asyncpg.Record] = await connection.fetch(sql, *arguments)
            return rows
        finally:
            await connection.close()


async def _is_ready(client: httpx.AsyncClient, url: str) -> bool:
    return (await client.get(f"{url}/ready")).status_code == 200


async def says_it_is_away(client: httpx.AsyncClient) -> bool:
    answer = await client.get("/ready")
    if answer.status_code == 200:
        return False
    check_unavailable(answer)
    return True


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await is_so():  # noqa: ASYNC110 - of other processes
            await asyncio.sleep(0.05)


@contextmanager
def open_replicas(directory: Path, count: int) -> Iterator[Replicas]:
    """Running servers; fails at the end if one of them has logged what nobody should see."""
    with open_cluster(is_durable=True) as cluster:
        replicas = Replicas(cluster, directory)
        try:
            replicas.prepare()
            replicas.serve(count)
            yield replicas
            assert all(server.process.poll() is None for server in replicas.servers)
        finally:
            for server in replicas.servers:
                server.kill()
    for server in replicas.servers:
        check_server_log(server.stderr)


def check_server_log(log: str) -> None:
    """An outage is a few lines; no defect, no password and no task's forgotten error is in it."""
    for never in ("Traceback", "never retrieved", PASSWORD, "failed at this"):
        assert never not in log, log
    assert len(log.splitlines()) < 300, log


def client_of(server: ServerProcess, agent_id: str = "alice") -> httpx.AsyncClient:
    headers = {"X-API-Key": API_KEY, "X-Agent-ID": agent_id}
    return httpx.AsyncClient(base_url=server.url, headers=headers, timeout=PATIENCE_S)


async def set_read_only(replicas: Replicas, state: str) -> None:
    await replicas.query(f"ALTER SYSTEM SET default_transaction_read_only = {state}")
    await replicas.query("SELECT pg_reload_conf()")


async def call(client: httpx.AsyncClient, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await client.post(f"/mcp/tool/{tool}", json=arguments)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def insist(client: httpx.AsyncClient, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call until it is done, as the answers to a call that may be repeated ask for."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await client.post(f"/mcp/tool/{tool}", json=arguments)
            body: dict[str, Any] = answer.json()
            if answer.status_code == 200:
                return body
            check_unavailable(answer)
            await asyncio.sleep(0.05)


def check_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    body = answer.json()
    assert (body["code"], body["retryable"]) == ("UNAVAILABLE", True)
    assert PASSWORD not in answer.text


async def check_is_away(server: ServerProcess, session_id: str) -> float:
    """Whatever is asked of it is answered with "try again" and in time; the longest it took, s."""
    add = {"session_id": session_id, "content": "lost", "idempotency_key": "told to try again"}
    async with client_of(server) as client:
        started = time.monotonic()
        taken: list[float] = []

        async def ask(method: str, path: str, body: object = None) -> httpx.Response:
            answer = await client.request(method, path, json=body)
            taken.append(time.monotonic() - started)
            return answer

        failing = await asyncio.gather(
            ask("POST", "/mcp/tool/add_message", add),
            ask("POST", "/mcp/tool/get_messages", {"session_id": session_id}),
            ask("POST", "/mcp/tool/set_memory", {"key": "k", "value": 1}),
            ask("POST", "/mcp/tool/list_sessions", {}),
            ask("GET", f"/events?session_id={session_id}"),
            *(ask("POST", "/mcp/tool/get_session", {"session_id": session_id}) for _ in range(20)),
        )
        assert max(taken) < 2 * TIMEOUT_S + SLACK_S
        for answer in failing:
            check_unavailable(answer)
        # An answer of the database counts for a second.
        await until(lambda: says_it_is_away(client))
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200
        return max(taken)
