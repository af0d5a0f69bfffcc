"""Who waits at one server hears of what is written at another, whatever happened in between."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest

from tests.postgres_faults.replicas import (
    PATIENCE_S,
    ROLE,
    Replicas,
    call,
    client_of,
    insist,
    until,
)

Disturb = Callable[[Replicas], Awaitable[None]]

_LISTENERS = """
    SELECT pid FROM pg_stat_activity
    WHERE usename = 'scs' AND (query ILIKE 'LISTEN %' OR query = 'SELECT 1')"""
_CUT = f"SELECT pg_terminate_backend(pid) FROM ({_LISTENERS}) AS listener"


class Heard:
    """What a follower has heard, in order; it never stops following."""

    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.at = 0.0
        self._more = asyncio.Event()

    def add(self, messages: list[dict[str, Any]]) -> None:
        self.seqs += [message["seq"] for message in messages]
        self.at = time.monotonic()
        self._more.set()

    async def wait_for(self, seq: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not self.seqs or self.seqs[-1] < seq:
                self._more.clear()
                await self._more.wait()


async def follow_by_waiting(client: httpx.AsyncClient, session_id: str, heard: Heard) -> None:
    cursor = 0
    while True:
        waited = await insist(
            client, "wait_for_messages", session_id=session_id, after_seq=cursor, timeout_seconds=60
        )
        heard.add(waited["messages"])
        cursor = waited["next_after_seq"]


async def follow_by_stream(client: httpx.AsyncClient, session_id: str, heard: Heard) -> None:
    last_id = "0"
    while True:
        params, headers = {"session_id": session_id}, {"Last-Event-ID": last_id}
        async with client.stream("GET", "/events", params=params, headers=headers) as response:
            if response.status_code != 200:
                await asyncio.sleep(0.05)
                continue
            with suppress(httpx.RemoteProtocolError):
                async for line in response.aiter_lines():
                    name, _, value = line.partition(": ")
                    if name == "id":
                        last_id = value
                    if name == "data" and "content" in (message := json.loads(value)):
                        heard.add([message])


@asynccontextmanager
async def following(replicas: Replicas, session_id: str) -> AsyncIterator[list[Heard]]:
    """One who waits and one who streams, at every server."""
    heard: list[Heard] = []
    async with asyncio.TaskGroup() as group:
        tasks = []
        for server in replicas.servers:
            for follow in (follow_by_waiting, follow_by_stream):
                heard.append(Heard())
                client = client_of(server, follow.__name__)
                tasks.append(group.create_task(_close_after(client, follow, session_id, heard[-1])))
        yield heard
        for task in tasks:
            task.cancel()


async def _close_after(
    client: httpx.AsyncClient,
    follow: Callable[[httpx.AsyncClient, str, Heard], Awaitable[None]],
    session_id: str,
    heard: Heard,
) -> None:
    async with client:
        await follow(client, session_id, heard)


async def count_listeners(replicas: Replicas) -> int:
    return len(await replicas.query(_LISTENERS))


async def all_listen(replicas: Replicas) -> bool:
    return await count_listeners(replicas) == len(replicas.servers)


async def restart(replicas: Replicas) -> None:
    await asyncio.to_thread(replicas.cluster.stop)
    await asyncio.to_thread(replicas.cluster.start)


async def crash(replicas: Replicas) -> None:
    await asyncio.to_thread(replicas.cluster.kill)
    await asyncio.to_thread(replicas.cluster.start)


async def hang(replicas: Replicas) -> None:
    replicas.cluster.freeze()
    async with client_of(replicas.servers[0]) as client:
        # Until it is noticed.
        assert (await client.post("/mcp/tool/list_sessions", json={})).status_code == 503
    replicas.cluster.thaw()


@pytest.mark.parametrize("disturb", [restart, crash, hang])
async def test_who_waits_at_any_server_is_woken_after_the_database_was_away(
    replicas: Replicas, disturb: Disturb
) -> None:
    async with client_of(replicas.servers[0]) as client:
        session_id = (await call(client, "create_session", purpose="waking"))["session_id"]
        async with following(replicas, session_id) as heard:
            for seq in (1, 2):
                await insist(client, "add_message", session_id=session_id, content=str(seq))
                for each in heard:
                    await each.wait_for(seq)
                if seq == 1:
                    await disturb(replicas)
                    await replicas.recover()
            assert [each.seqs for each in heard] == [[1, 2]] * len(heard)
            # By ringing again, not only by looking now and then.
            await until(lambda: all_listen(replicas))


async def test_a_lost_listening_connection_loses_no_message(replicas: Replicas) -> None:
    async with client_of(replicas.servers[0]) as client:
        session_id = (await call(client, "create_session", purpose="cut"))["session_id"]
        async with following(replicas, session_id) as heard:
            await until(lambda: all_listen(replicas))
            for seq in range(1, 11):
                cutting = asyncio.create_task(replicas.query(_CUT))
                await call(client, "add_message", session_id=session_id, content=str(seq))
                for each in heard:
                    await each.wait_for(seq)
                await cutting
            await until(lambda: all_listen(replicas))
            assert [each.seqs for each in heard] == [list(range(1, 11))] * len(heard)


async def test_who_waits_is_woken_within_a_second_while_nobody_can_listen(
    replicas: Replicas,
) -> None:
    async with client_of(replicas.servers[0]) as client:
        session_id = (await call(client, "create_session", purpose="deaf"))["session_id"]
        async with following(replicas, session_id) as heard:
            await until(lambda: all_listen(replicas))
            await call(client, "add_message", session_id=session_id, content="1")
            for each in heard:
                await each.wait_for(1)
            replicas.cluster.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT 1")
            try:
                await replicas.query(_CUT)
                started = time.monotonic()
                await call(client, "add_message", session_id=session_id, content="2")
                for each in heard:
                    await each.wait_for(2)
                assert await count_listeners(replicas) == 0
                assert max(each.at for each in heard) - started < 1.0
            finally:
                replicas.cluster.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")
            await until(lambda: all_listen(replicas))
