"""The fleet as a caller sees it, from real calls of agents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared_context_server.auth.connection import Connection
from shared_context_server.auth.keys import AUTH_DISABLED
from shared_context_server.errors import InvalidArgument, PermissionDenied
from shared_context_server.models import Activity, Caller
from shared_context_server.server import Server, open_server
from shared_context_server.services.fleet import Fleet, get_fleet
from tests.settings import make_settings
from tests.storage import builders
from tests.until import PATIENCE_S, until

ALICE, BOB, CAROL, ADMIN = (
    replace(caller, key_id=AUTH_DISABLED.key_id)
    for caller in (builders.ALICE, builders.BOB, builders.CAROL, builders.ADMIN)
)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with open_server(make_settings(tmp_path / "data", auth_enabled=False)) as server:
        yield server


async def call(server: Server, caller: Caller, tool: str, **arguments: Any) -> Any:
    outcome = await server.dispatcher.call(tool, arguments, Connection(caller))
    assert outcome.status == 200, outcome.body
    return outcome.body


async def add_session(server: Server, **arguments: Any) -> str:
    created = await call(server, ALICE, "create_session", purpose="Parser", **arguments)
    session_id: str = created.session_id
    return session_id


async def see(server: Server, caller: Caller = ADMIN, **arguments: Any) -> Fleet:
    return await get_fleet(server.services, caller, **arguments)


async def test_two_agents_that_wait_for_each_other_are_a_deadlock(server: Server) -> None:
    session_id = await add_session(server, access="invited", participants=["bob"])
    for caller, name in ((ALICE, "left"), (BOB, "right")):
        await call(server, caller, "acquire_lease", session_id=session_id, name=name)
    waits = [
        asyncio.create_task(
            call(
                server,
                caller,
                "acquire_lease",
                session_id=session_id,
                name=name,
                wait_seconds=60,
            )
        )
        for caller, name in ((ALICE, "right"), (BOB, "left"))
    ]
    await until(lambda: server.services.bus.subscriber_count == 2)
    found = await see(server)
    assert found.counts[Activity.BLOCKED] == 2
    assert {
        wait.waiter.agent_id: (wait.holder.agent_id, wait.name) for wait in found.graph.waits
    } == {
        "alice": ("bob", "right"),
        "bob": ("alice", "left"),
    }
    (circle,) = found.graph.deadlocks
    assert {thread.agent_id for thread in circle} == {"alice", "bob"}
    assert all(wait.is_deadlock for wait in found.graph.waits)
    assert [agent.purpose for agent in found.agents[:2]] == ["Parser", "Parser"]
    stranger = await see(server, CAROL)
    assert (stranger.graph.waits, stranger.graph.deadlocks) == ([], [])
    assert {agent.purpose for agent in stranger.agents} == {None}
    assert stranger.counts[Activity.BLOCKED] == 0
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    assert (await see(server)).counts[Activity.BLOCKED] == 0


async def test_who_waits_for_paths_is_blocked_by_the_lease_that_has_them(server: Server) -> None:
    await call(server, ALICE, "acquire_lease", name="all", paths=["src/**"])
    waiting = asyncio.create_task(
        call(server, BOB, "acquire_lease", name="one", paths=["src/a.py"], wait_seconds=60)
    )
    async with asyncio.timeout(PATIENCE_S):
        while not (found := await see(server)).graph.waits:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
    (wait,) = found.graph.waits
    assert (wait.waiter.agent_id, wait.holder.agent_id, wait.name) == ("bob", "alice", "all")
    assert not wait.is_deadlock
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_an_agent_is_shown_with_its_session_its_tasks_and_what_it_has_not_read(
    server: Server,
) -> None:
    session_id = await add_session(server)
    for title in ("Read", "Write"):
        await call(server, ALICE, "add_task", session_id=session_id, title=title)
    await call(server, BOB, "claim_task", session_id=session_id, ttl_seconds=600)
    await call(server, BOB, "acquire_lease", name="deploy")
    await call(server, BOB, "mark_read", session_id=session_id, seq=1)
    await call(server, BOB, "set_status", text="Reading the tests", state="working")
    for visibility in ("public", "private", "agent_only"):
        addressed = {"recipients": ["bob"]} if visibility == "private" else {}
        await call(
            server,
            ALICE,
            "add_message",
            session_id=session_id,
            content="x",
            visibility=visibility,
            **addressed,
        )
    for caller, unread in ((ADMIN, 4), (BOB, 4), (ALICE, 3), (CAROL, 2)):
        agents = {agent.agent_id: agent for agent in (await see(server, caller)).agents}
        bob = agents["bob"]
        assert bob.unread == unread
        assert (bob.session_id, bob.shown.instance.status) == (session_id, "Reading the tests")
        assert [(task.task_id, task.title) for task in bob.tasks] == [(1, "Read")]
        assert [lease.name for lease in bob.leases] == ["deploy"]
        assert agents["alice"].unread is None


async def test_only_readers_see_the_fleet_and_pages_follow_each_other(server: Server) -> None:
    with pytest.raises(PermissionDenied):
        await see(server, replace(ALICE, permissions=frozenset()))
    for caller in (ALICE, BOB, CAROL):
        await call(server, caller, "get_time")
    first = await see(server, limit=2)
    last = await see(server, limit=2, cursor=first.next_cursor)
    listed = [agent.agent_id for page in (first, last) for agent in page.agents]
    assert (listed, last.next_cursor) == (["carol", "bob", "alice"], None)
    with pytest.raises(InvalidArgument):
        await see(server, cursor="x")


async def test_who_waits_for_messages_is_waiting_from_its_first_wait_on(server: Server) -> None:
    session_id = await add_session(server)
    found = []
    for _ in range(2):  # again at once, as agents do
        waiting = asyncio.create_task(
            call(server, BOB, "wait_for_messages", session_id=session_id, timeout_seconds=60)
        )
        await until(lambda: server.services.bus.subscriber_count == 1)
        found.append((await see(server, activity=Activity.WAITING)).agents[0])
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert [agent.agent_id for agent in found] == ["bob", "bob"]
    assert found[0].shown.instance.waits_since == found[1].shown.instance.waits_since
