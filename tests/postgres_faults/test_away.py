"""The database is away for a while: clients are told to try again, and nothing else is lost."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.postgres_faults.replicas import (
    PATIENCE_S,
    ROLE,
    TIMEOUT_S,
    Replicas,
    call,
    check_is_away,
    check_server_log,
    check_unavailable,
    client_of,
    insist,
    says_it_is_away,
    set_read_only,
    until,
)

Fault = Callable[[Replicas], Awaitable[Callable[[], None]]]

_END_SESSIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE usename = $1 AND pid <> pg_backend_pid()"""


async def stop(replicas: Replicas) -> Callable[[], None]:
    await asyncio.to_thread(replicas.cluster.stop)
    return replicas.cluster.start


async def kill(replicas: Replicas) -> Callable[[], None]:
    await asyncio.to_thread(replicas.cluster.kill)
    return replicas.cluster.start


async def freeze(replicas: Replicas) -> Callable[[], None]:
    replicas.cluster.freeze()
    return replicas.cluster.thaw


async def allow_no_connection(replicas: Replicas) -> Callable[[], None]:
    replicas.cluster.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT 0")
    await replicas.query(_END_SESSIONS, ROLE)
    return lambda: replicas.cluster.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")


class Acknowledged:
    """What was acknowledged: content and seq."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, int]] = []
        self._more = asyncio.Event()

    def add(self, content: str, seq: int) -> None:
        self.messages.append((content, seq))
        self._more.set()

    async def wait_for_more(self, count: int) -> None:
        wanted = len(self.messages) + count
        async with asyncio.timeout(PATIENCE_S):
            while len(self.messages) < wanted:
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def writing(replicas: Replicas, session_id: str) -> AsyncIterator[Acknowledged]:
    """Agents at every server write, each repeating what it is told to try again."""
    acknowledged = Acknowledged()
    is_over = False

    async def write(agent: int) -> None:
        server = replicas.servers[agent % len(replicas.servers)]
        async with client_of(server, f"agent-{agent}") as client:
            for number in itertools.count():
                add = {"session_id": session_id, "content": f"{agent}/{number}"}
                added = await insist(client, "add_message", **add, idempotency_key=str(number))
                acknowledged.add(add["content"], added["seq"])
                if is_over:
                    return

    agents = [asyncio.create_task(write(agent)) for agent in range(6)]
    await acknowledged.wait_for_more(20)
    try:
        yield acknowledged
    finally:
        is_over = True
        await asyncio.gather(*agents)


async def check_log(
    replicas: Replicas, session_id: str, acknowledged: list[tuple[str, int]]
) -> None:
    rows = await replicas.query(
        "SELECT content, seq FROM messages WHERE session_id = $1 ORDER BY seq", session_id
    )
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    assert sorted((row["content"], row["seq"]) for row in rows) == sorted(acknowledged)


@pytest.mark.parametrize("fault", [stop, kill, freeze, allow_no_connection])
async def test_a_database_that_is_away_costs_clients_nothing_but_retries(
    replicas: Replicas, fault: Fault
) -> None:
    async with client_of(replicas.servers[0]) as client:
        session_id = (await call(client, "create_session", purpose="away"))["session_id"]
    async with writing(replicas, session_id) as acknowledged:
        repair = await fault(replicas)
        try:
            await asyncio.gather(
                *(check_is_away(server, session_id) for server in replicas.servers)
            )
        finally:
            await asyncio.to_thread(repair)
        await replicas.recover()
        await acknowledged.wait_for_more(50)
    async with client_of(replicas.servers[1]) as client:
        add = {"session_id": session_id, "content": "lost", "idempotency_key": "told to try again"}
        told = [await call(client, "add_message", **add) for _ in range(2)]
    assert told[0]["seq"] == told[1]["seq"]
    await check_log(replicas, session_id, [*acknowledged.messages, ("lost", told[0]["seq"])])


async def test_a_database_that_takes_no_writes_is_read_meanwhile(replicas: Replicas) -> None:
    """As one is whose place a standby has taken."""
    async with client_of(replicas.servers[0]) as client, client_of(replicas.servers[1]) as other:
        session_id = (await call(client, "create_session", purpose="standby"))["session_id"]
        add = {"session_id": session_id, "content": "1", "idempotency_key": "1"}
        await set_read_only(replicas, "on")
        try:
            for each in (client, other):
                await until(lambda each=each: is_refused(each, add))
                await until(lambda each=each: says_it_is_away(each))
                assert (await call(each, "get_messages", session_id=session_id))["count"] == 0
        finally:
            await set_read_only(replicas, "off")
        await replicas.recover()
        assert (await call(client, "add_message", **add))["seq"] == 1


async def is_refused(client: httpx.AsyncClient, add: dict[str, str]) -> bool:
    """Sessions of the database hear of a setting a moment later."""
    answer = await client.post("/mcp/tool/add_message", json=add | {"idempotency_key": "0"})
    if answer.status_code == 200:
        return False
    check_unavailable(answer)
    return True


async def test_callers_who_leave_a_database_that_hangs_leave_nothing_behind(
    replicas: Replicas,
) -> None:
    async with client_of(replicas.servers[0]) as client:
        session_id = (await call(client, "create_session", purpose="leaving"))["session_id"]
        replicas.cluster.freeze()
        try:
            for _ in range(30):
                add = {"session_id": session_id, "content": "never heard of again"}
                with pytest.raises(httpx.ReadTimeout):
                    await client.post("/mcp/tool/add_message", json=add, timeout=0.02)
        finally:
            replicas.cluster.thaw()
        await replicas.recover()

        async def is_nothing_in_use() -> bool:
            gauges = (await client.get("/metrics")).text
            return "scs_postgres_connections_in_use 0.0" in gauges

        await until(is_nothing_in_use)
        await asyncio.gather(
            *(call(client, "add_message", session_id=session_id, content="x") for _ in range(30))
        )


async def test_a_server_that_is_stopped_while_the_database_hangs_ends_soon(
    replicas: Replicas,
) -> None:
    server = replicas.start()
    try:
        server.url = server.wait_for(r"(http://[^/\s\"]+)/health")[1]
        async with client_of(server) as client:
            await call(client, "list_sessions")
            waiting = asyncio.create_task(client.get("/events"))
            await until(lambda: has_waiter(client))
            replicas.cluster.freeze()
            try:
                started = time.monotonic()
                assert await asyncio.to_thread(server.stop) == 0
            finally:
                replicas.cluster.thaw()
            assert time.monotonic() - started < 6 * TIMEOUT_S
            await asyncio.wait([waiting])
    finally:
        server.kill()
    check_server_log(server.stderr)


async def has_waiter(client: httpx.AsyncClient) -> bool:
    return "mcp_waiters 1.0" in (await client.get("/metrics")).text
