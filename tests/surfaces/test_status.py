"""What list_agents shows of agents: their own words, what they did last, hold and wait for."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from shared_context_server.server import Server
from tests.settings import ADMIN_API_KEY
from tests.surfaces.conftest import As, RestSurface, Surface, headers_of
from tests.surfaces.test_contract import assert_refused, new_session
from tests.surfaces.test_waiting import PATIENCE_S, waiting


async def show(surface: Surface, agent_id: str) -> dict[str, Any]:
    """What the caller is shown of this agent."""
    listed = (await surface.call("list_agents"))["agents"]
    found: dict[str, Any] = next(agent for agent in listed if agent["agent_id"] == agent_id)
    return found


async def test_an_agent_says_what_it_does_until_it_says_something_else(as_agent: As) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    await alice.call("get_time")
    unset = await show(bob, "alice")
    assert (unset["state"], unset["status"], unset["since"]) == (None, "", None)
    assert unset["last_action"] == "get_time"
    said = await alice.call("set_status", text=" migrating\nthe tables ", state="working")
    assert (said["status"], said["state"]) == ("migrating the tables", "working")
    again = await alice.call("set_status", text="migrating the tables", state="working")
    assert again.body == said.body
    shown = await show(bob, "alice")
    assert {name: shown[name] for name in ("status", "state", "since", "last_action")} == {
        "status": "migrating the tables",
        "state": "working",
        "since": said["since"],
        "last_action": "set_status",
    }
    changed = await alice.call("set_status", text="waiting for review")
    assert changed["since"] > said["since"]
    assert (await show(bob, "alice"))["state"] is None
    assert (await alice.call("set_status", text=""))["since"] is None
    assert (await show(bob, "alice"))["status"] == ""
    assert_refused(await alice.call("set_status", text="x" * 501), "INVALID_ARGUMENT", "text")
    assert_refused(await alice.call("set_status", text="x", state="?"), "INVALID_ARGUMENT", "state")


async def test_what_an_agent_holds_and_waits_for_is_shown_to_those_who_see_the_session(
    as_agent: As, server: Server
) -> None:
    alice, bob, eve = await as_agent("alice"), await as_agent("bob"), await as_agent("eve")
    admin = await as_agent("root", api_key=ADMIN_API_KEY)
    session_id = await new_session(alice, access="invited", participants=["bob"])
    for place in ({"name": "everywhere"}, {"name": "deploy", "session_id": session_id}):
        assert (await alice.call("acquire_lease", **place))["acquired"]
    wait = {"session_id": session_id, "timeout_seconds": PATIENCE_S, "after_seq": 0}
    (for_alice,) = await waiting(server, 1, alice.call("wait_for_messages", **wait))
    for reader, sees in ((bob, True), (admin, True), (eve, False)):
        shown = await show(reader, "alice")
        held = [(item["kind"], item["session_id"], item["name"]) for item in shown["holds"]]
        everywhere = ("lease", None, "everywhere")
        assert held == ([("lease", session_id, "deploy")] if sees else []) + [everywhere]
        waits_for = {"kind": "messages", "session_id": session_id, "name": None}
        assert shown["waits_for"] == (waits_for if sees else None)
        assert shown["last_action"] == "wait_for_messages"
    await bob.call("add_message", session_id=session_id, content="x")
    await for_alice
    assert (await show(bob, "alice"))["waits_for"] is None
    taken = {"name": "deploy", "session_id": session_id, "wait_seconds": PATIENCE_S}
    (for_bob,) = await waiting(server, 1, bob.call("acquire_lease", **taken))
    waits_for = {"kind": "lease", "session_id": session_id, "name": "deploy"}
    assert (await show(alice, "bob"))["waits_for"] == waits_for
    await alice.call("release_lease", name="deploy", session_id=session_id, fencing_token=1)
    async with asyncio.timeout(PATIENCE_S):
        assert (await for_bob)["acquired"]
    await bob.call("set_status", text="deploying")
    shown = await show(alice, "bob")
    assert (shown["waits_for"], shown["last_action"]) == (None, "set_status")


async def test_who_waits_for_a_task_is_shown_to_those_who_see_the_session(
    as_agent: As, server: Server
) -> None:
    alice, bob, eve = await as_agent("alice"), await as_agent("bob"), await as_agent("eve")
    session_id = await new_session(alice, access="invited", participants=["bob"])
    place = {"session_id": session_id}
    await alice.call("add_task", **place, title="Test the parser")
    claimed = (await alice.call("claim_task", **place))["task"]
    (for_bob,) = await waiting(server, 1, bob.call("claim_task", **place, wait_seconds=PATIENCE_S))
    waits_for = {"kind": "task", "session_id": session_id, "name": None}
    assert (await show(alice, "bob"))["waits_for"] == waits_for
    assert (await show(eve, "bob"))["waits_for"] is None
    ended = {**place, "task_id": 1}
    token = claimed["fencing_token"]
    await alice.call("finish_task", **ended, fencing_token=token, outcome="released")
    async with asyncio.timeout(PATIENCE_S):
        token = (await for_bob)["task"]["fencing_token"]
    assert (await show(alice, "bob"))["waits_for"] is None
    (for_alice,) = await waiting(
        server, 1, alice.call("claim_task", **ended, wait_seconds=PATIENCE_S)
    )
    assert (await show(bob, "alice"))["waits_for"] == waits_for | {"name": "task:1"}
    await bob.call("finish_task", **ended, fencing_token=token)
    async with asyncio.timeout(PATIENCE_S):
        assert (await for_alice)["task"] is None


async def test_each_instance_of_an_agent_is_shown(url: str) -> None:
    async with AsyncExitStack() as stack:

        async def connect(instance: str) -> RestSurface:
            named = headers_of("alice") | {"X-Agent-Instance": instance}
            return await stack.enter_async_context(RestSurface(url, named))

        one, two = await connect("one"), await connect("two")
        await one.call("set_status", text="reading", state="idle")
        assert (await two.call("acquire_lease", name="deploy"))["instance"] == "two"
        await two.call("set_status", text="writing", state="working")
        shown = await show(two, "alice")
        assert (shown["instance"], shown["status"], shown["state"]) == ("two", "writing", "working")
        assert [(item["name"], item["instance"]) for item in shown["holds"]] == [("deploy", "two")]
        others = [(o["instance"], o["status"], o["state"]) for o in shown["other_instances"]]
        assert others == [("one", "reading", "idle")]
