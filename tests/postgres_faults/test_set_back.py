"""The database is set back to an earlier state, or made anew, under running replicas."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.postgres_faults.replicas import (
    DATABASE,
    PATIENCE_S,
    ROLE,
    Replicas,
    call,
    check_unavailable,
    client_of,
    insist,
    open_replicas,
    until,
)

KEPT, LOST = 20, 60


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[Replicas]:
    """Two servers on a database of this test's own."""
    with open_replicas(tmp_path, 2) as replicas:
        yield replicas


@pytest.fixture
async def clients(replicas: Replicas) -> AsyncIterator[list[httpx.AsyncClient]]:
    """One of each server."""
    await replicas.recover()
    async with AsyncExitStack() as stack:
        agents = zip(replicas.servers, ("alice", "bob"), strict=True)
        yield [
            await stack.enter_async_context(client_of(server, agent_id))
            for server, agent_id in agents
        ]


async def write(client: httpx.AsyncClient, session_id: str, numbers: range, word: str) -> None:
    for number in numbers:
        text = f"{word} {number}"
        await insist(client, "add_message", session_id=session_id, content=text)


async def find(client: httpx.AsyncClient, session_id: str, query: str) -> list[str]:
    found = await insist(
        client, "search_context", session_id=session_id, query=query, fuzzy_threshold=95, limit=100
    )
    return [result["message"]["content"] for result in found["results"]]


async def read_stream_to_its_end(client: httpx.AsyncClient, session_id: str) -> list[str]:
    """The kinds of the events."""
    kinds = []
    headers = {"Last-Event-ID": str(LOST)}
    async with client.stream(
        "GET", "/events", params={"session_id": session_id}, headers=headers
    ) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kinds.append(value)
            if name == "data" and kinds[-1] == "log_set_back":
                assert json.loads(value) == {"session_id": session_id}
    return kinds


def check_lost(answer: httpx.Response, cursor: int, field: str = "after_seq") -> None:
    assert answer.status_code == 409, answer.text
    body: dict[str, Any] = answer.json()
    assert (body["code"], body["retryable"]) == ("CURSOR_LOST", False)
    assert body["details"] == {"field": field, "cursor": cursor}


async def test_a_database_that_was_set_back_is_noticed_by_all_who_read(
    replicas: Replicas, clients: list[httpx.AsyncClient]
) -> None:
    alice, bob = clients
    session_id = (await call(alice, "create_session", purpose="x"))["session_id"]
    await write(alice, session_id, range(1, KEPT + 1), "kept")
    await asyncio.to_thread(replicas.cluster.save)
    await write(alice, session_id, range(KEPT + 1, LOST + 1), "lost")
    assert len(await find(bob, session_id, "lost")) == LOST - KEPT

    wait = {"session_id": session_id, "after_seq": LOST, "timeout_seconds": 60}
    waiting = asyncio.create_task(bob.post("/mcp/tool/wait_for_messages", json=wait))
    streaming = asyncio.create_task(read_stream_to_its_end(bob, session_id))
    await until(lambda: _count_subscribers(bob, 2))
    await let_look(bob, session_id)
    await asyncio.to_thread(replicas.cluster.set_back)
    check_lost(await waiting, LOST)
    async with asyncio.timeout(PATIENCE_S):
        assert await streaming == ["log_set_back"]

    await replicas.recover()
    for tool in ("wait_for_messages", "get_messages", "get_digest"):
        asked = {"session_id": session_id, "after_seq": LOST}
        check_lost(await bob.post(f"/mcp/tool/{tool}", json=asked), LOST)
    asked_by = {"params": {"session_id": session_id}, "headers": {"Last-Event-ID": str(LOST)}}
    check_lost(await bob.get("/events", **asked_by), LOST)  # type: ignore[arg-type]
    check_lost(await bob.get("/events", headers={"Last-Event-ID": "999999"}), 999999)
    await write(alice, session_id, range(KEPT + 1, KEPT + 11), "anew")
    assert await find(bob, session_id, "lost") == []
    assert len(await find(bob, session_id, "anew")) == 10
    page = await call(bob, "get_messages", session_id=session_id, after_seq=KEPT)
    assert [message["content"] for message in page["messages"]][:2] == ["anew 21", "anew 22"]


async def let_look(client: httpx.AsyncClient, session_id: str) -> None:
    """Let those who have begun to wait look once: who has to read while the database is away is
    told to try again, which is another subject."""
    for _ in range(20):
        await call(client, "get_session", session_id=session_id)
        await asyncio.sleep(0.05)


async def _count_subscribers(client: httpx.AsyncClient, count: int) -> bool:
    return f"mcp_waiters {float(count)}" in (await client.get("/metrics")).text


async def test_a_log_that_has_grown_beyond_the_cursor_again_is_noticed_too(
    replicas: Replicas, clients: list[httpx.AsyncClient]
) -> None:
    """Few were lost and as many written anew before the reader looks: it must not go on behind."""
    alice, bob = clients
    session_id = (await call(alice, "create_session", purpose="x"))["session_id"]
    await write(alice, session_id, range(1, 4), "kept")
    await asyncio.to_thread(replicas.cluster.save)
    asked = {"params": {"session_id": session_id}, "headers": {"Last-Event-ID": "3"}}
    async with bob.stream("GET", "/events", **asked) as response:  # type: ignore[arg-type]
        lines = response.aiter_lines()
        # The second of them is told to a stream that waits: its server listens to the others then.
        for number in (4, 5):
            await write(alice, session_id, range(number, number + 1), "lost")
            while await anext(lines) != f"id: {number}":
                pass
        assert len(await find(bob, session_id, "lost")) == 2
        wait = {"session_id": session_id, "after_seq": 5, "timeout_seconds": 60}
        waiting = asyncio.create_task(bob.post("/mcp/tool/wait_for_messages", json=wait))
        await until(lambda: _count_subscribers(bob, 2))
        await let_look(bob, session_id)
        replicas.servers[1].process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.to_thread(replicas.cluster.set_back)
            await write(alice, session_id, range(4, 10), "anew")
        finally:
            replicas.servers[1].process.send_signal(signal.SIGCONT)
        check_lost(await waiting, 5)
        kinds = [line async for line in lines if line.startswith("event: ")]
        assert kinds[-1] == "event: log_set_back"


async def test_a_database_that_was_made_anew_is_unusable_until_it_is_migrated(
    replicas: Replicas, clients: list[httpx.AsyncClient]
) -> None:
    alice, bob = clients
    session_id = (await call(alice, "create_session", purpose="x"))["session_id"]
    await write(alice, session_id, range(1, 4), "lost")
    assert len(await find(bob, session_id, "lost")) == 3

    replicas.cluster.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
    await until(lambda: _is_away(alice, session_id))
    replicas.cluster.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
    for client in clients:
        await until(lambda client=client: _is_away(client, session_id))
        await until(lambda client=client: _is_not_ready(client))
    replicas.serve(1)
    await replicas.recover()
    gone = await bob.post("/mcp/tool/get_messages", json={"session_id": session_id})
    assert (gone.status_code, gone.json()["code"]) == (404, "SESSION_NOT_FOUND")
    new_id = (await insist(alice, "create_session", purpose="x"))["session_id"]
    await write(alice, new_id, range(1, 4), "anew")
    assert len(await find(bob, new_id, "anew")) == 3


async def test_a_schema_that_was_removed_is_unusable_until_it_is_migrated(
    replicas: Replicas, clients: list[httpx.AsyncClient]
) -> None:
    """The connections stay, and know statements of tables that are not there any more."""
    alice, bob = clients
    session_id = (await call(alice, "create_session", purpose="x"))["session_id"]
    await write(alice, session_id, range(1, 4), "lost")
    await replicas.query("DROP SCHEMA public CASCADE")
    await until(lambda: _is_away(alice, session_id))
    await replicas.query(f"CREATE SCHEMA public AUTHORIZATION {ROLE}")
    for client in clients:
        assert await _is_away(client, session_id)
        await until(lambda client=client: _is_not_ready(client))
    replicas.serve(1)
    await replicas.recover()
    new_id = (await insist(alice, "create_session", purpose="x"))["session_id"]
    await write(alice, new_id, range(1, 4), "anew")
    assert len(await find(bob, new_id, "anew")) == 3
    gone = await bob.post("/mcp/tool/get_messages", json={"session_id": session_id})
    assert gone.status_code == 404


async def _is_away(client: httpx.AsyncClient, session_id: str) -> bool:
    answer = await client.post(
        "/mcp/tool/add_message", json={"session_id": session_id, "content": "x"}
    )
    if answer.status_code == 200:
        return False
    check_unavailable(answer)
    return True


async def _is_not_ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/ready")).status_code == 503
