"""The database is away for a while: clients are told to try again, and nothing else is lost."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import asyncpg
import httpx
import pytest

from shared_context_server.storage.postgres.engine.circuit_breaker import ASK_INTERVAL_S
from tests.postgres_faults.replicas import (
    DATABASE,
    PATIENCE_S,
    ROLE,
    SLACK_S,
    Replicas,
    call,
    check_is_away,
    check_server_log,
    check_unavailable,
    client_of,
    insist,
    says_it_is_away,
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


_RELOAD = "SELECT pg_reload_conf()"
_FILL = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN RAISE EXCEPTION $$No space left on device$$ USING ERRCODE = $$disk_full$$; END';
    CREATE TRIGGER refuse BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION refuse()"""


@pytest.mark.parametrize(
    "refuse, allow, is_told",
    [
        # As one is whose place a standby has taken.
        (
            ["ALTER SYSTEM SET default_transaction_read_only = on", _RELOAD],
            ["ALTER SYSTEM SET default_transaction_read_only = off", _RELOAD],
            True,
        ),
        ([f"REVOKE INSERT ON messages FROM {ROLE}"], [f"GRANT INSERT ON messages TO {ROLE}"], True),
        ([_FILL], ["DROP FUNCTION refuse CASCADE"], False),  # which only a write finds out
    ],
    ids=["read only", "a right is missing", "disk full"],
)
async def test_a_database_that_takes_no_writes_is_read_meanwhile(
    replicas: Replicas, refuse: list[str], allow: list[str], is_told: bool
) -> None:
    async with client_of(replicas.servers[0]) as client, client_of(replicas.servers[1]) as other:
        session_id = (await call(client, "create_session", purpose="standby"))["session_id"]
        add = {"session_id": session_id, "content": "1", "idempotency_key": "1"}
        for statement in refuse:
            replicas.cluster.execute(statement, database=DATABASE)
        try:
            for each in (client, other):
                await until(lambda each=each: is_refused(each, add))
                if is_told:
                    await until(lambda each=each: says_it_is_away(each))
                await call(each, "get_messages", session_id=session_id)
        finally:
            for statement in allow:
                replicas.cluster.execute(statement, database=DATABASE)
        await replicas.recover()
        added = await insist(client, "add_message", **add)
        assert (await call(other, "add_message", **add))["seq"] == added["seq"]


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
                # Who comes late on a slow machine is refused at once.
                with suppress(httpx.ReadTimeout):
                    timeout = httpx.Timeout(PATIENCE_S, read=0.02)
                    answer = await client.post("/mcp/tool/add_message", json=add, timeout=timeout)
                    check_unavailable(answer)
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


async def test_while_the_database_is_known_to_hang_callers_are_told_at_once(
    replicas: Replicas,
) -> None:
    async with client_of(replicas.servers[0]) as client:
        replicas.cluster.freeze()
        try:
            async with asyncio.timeout(PATIENCE_S):
                for _ in range(60):  # one after the other, so that each might wait for TIMEOUT_S
                    check_unavailable(await client.post("/mcp/tool/list_sessions", json={}))
            assert await says_it_is_away(client)
        finally:
            replicas.cluster.thaw()
        assert await replicas.recover() < ASK_INTERVAL_S + SLACK_S
        await call(client, "list_sessions")


async def test_a_lock_of_somebody_else_fails_only_who_needs_it(replicas: Replicas) -> None:
    connection = await asyncpg.connect(replicas.cluster.url(DATABASE))
    try:
        async with client_of(replicas.servers[0]) as client, connection.transaction():
            await connection.execute("LOCK TABLE memory IN EXCLUSIVE MODE")
            for _ in range(2):
                answer = await client.post("/mcp/tool/set_memory", json={"key": "k", "value": 1})
                check_unavailable(answer)
                await call(client, "list_sessions")
    finally:
        await connection.close()


async def test_a_server_that_is_stopped_while_the_database_hangs_ends_soon(
    replicas: Replicas,
) -> None:
    server = replicas.start(POSTGRES_TIMEOUT="60")
    try:
        server.url = server.wait_for(r"(http://[^/\s\"]+)/health")[1]
        async with client_of(server) as client:
            await call(client, "list_sessions")
            waiting = asyncio.create_task(client.get("/events"))
            await until(lambda: has_waiter(client))
            replicas.cluster.freeze()
            try:
                calling = asyncio.create_task(client.post("/mcp/tool/list_sessions", json={}))
                assert await asyncio.to_thread(server.stop) == 0  # which waits for 10 s
            finally:
                replicas.cluster.thaw()
            await asyncio.wait([waiting, calling])
    finally:
        server.kill()
    check_server_log(server.stderr)


async def has_waiter(client: httpx.AsyncClient) -> bool:
    return "mcp_waiters 1.0" in (await client.get("/metrics")).text
