"""Leases and fenced writes, the same over REST and both eras of MCP."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from shared_context_server.server import Server
from tests.settings import ADMIN_API_KEY, API_KEY
from tests.surfaces.conftest import As, RestSurface, Surface, headers_of
from tests.surfaces.test_contract import assert_refused, new_session
from tests.surfaces.test_mcp import MODERN, client_of
from tests.surfaces.test_waiting import PATIENCE_S, waiting
from tests.until import until


async def acquire(surface: Surface, **arguments: Any) -> int:
    """The token of a lease that is free."""
    answer = await surface.call("acquire_lease", **{"name": "deploy", **arguments})
    assert answer["acquired"] is True, answer.body
    token: int = answer["fencing_token"]
    return token


async def test_a_lease_has_one_holder_who_renews_it_until_it_is_released(as_agent: As) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    session_id = await new_session(alice)
    lease = {"name": "deploy", "session_id": session_id}
    before = datetime.now(UTC)
    first = await alice.call("acquire_lease", **lease, ttl_seconds=100)
    expires_at = datetime.fromisoformat(first["expires_at"])
    assert timedelta(0) <= expires_at - before - timedelta(seconds=100) < timedelta(seconds=30)
    assert first.body == {
        "success": True,
        "acquired": True,
        "name": "deploy",
        "session_id": session_id,
        "fencing_token": 1,
        "holder": "alice",
        "expires_at": first["expires_at"],
    }
    refused = await bob.call("acquire_lease", **lease)
    assert not refused.is_error
    assert refused.body == first.body | {"acquired": False, "fencing_token": None}
    renewed = await alice.call("acquire_lease", **lease, ttl_seconds=200)
    assert (renewed["acquired"], renewed["fencing_token"]) == (True, 1)
    assert renewed["expires_at"] > first["expires_at"]
    listed = await bob.call("list_leases", session_id=session_id)
    assert listed["count"] == 1
    shown = {name: listed["leases"][0][name] for name in ("name", "holder", "fencing_token")}
    assert shown == {"name": "deploy", "holder": "alice", "fencing_token": 1}
    assert (await bob.call("release_lease", **lease, fencing_token=1))["released"] is False
    assert (await alice.call("release_lease", **lease, fencing_token=1))["released"] is True
    assert (await alice.call("release_lease", **lease, fencing_token=1))["released"] is False
    assert (await bob.call("list_leases", session_id=session_id))["leases"] == []
    assert await acquire(bob, **lease) == 2
    assert (await bob.call("list_leases"))["count"] == 0  # server-wide


@pytest.mark.parametrize("is_of_session", [True, False])
async def test_a_write_with_a_stale_token_is_refused_with_its_own_code(
    as_agent: As, is_of_session: bool
) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    session_id = await new_session(alice)
    place = {"session_id": session_id} if is_of_session else {}
    writes = [("set_memory", {"key": "plan", "value": 1, "scope": "shared", **place})]
    if is_of_session:
        writes.append(("add_message", {"content": "x", **place}))
    stale = await acquire(alice, **place)
    fenced = {"lease": "deploy", "fencing_token": stale}
    for tool, arguments in writes:
        done = await alice.call(tool, **arguments, **fenced, idempotency_key=tool)
        assert not done.is_error, done.body
    await alice.call("release_lease", name="deploy", fencing_token=stale, **place)
    for tool, arguments in writes:
        refused = await alice.call(tool, **arguments, **fenced)
        assert_refused(refused, "LEASE_LOST", "fencing_token")
        assert refused["details"]["holder"] is None
    token = await acquire(bob, **place)
    for tool, arguments in writes:
        for surface, given in ((alice, stale), (alice, token), (bob, stale), (bob, token + 1)):
            refused = await surface.call(tool, **arguments, lease="deploy", fencing_token=given)
            assert_refused(refused, "LEASE_LOST", "fencing_token")
            assert refused["details"] | {"field": None} == {
                "field": None,
                "lease": "deploy",
                "holder": "bob",
                "current_token": token,
            }
            assert refused["retryable"] is False
        accepted = await bob.call(tool, **arguments, lease="deploy", fencing_token=token)
        assert not accepted.is_error
        # What was acknowledged is acknowledged again, whoever holds the lease now.
        again = await alice.call(tool, **arguments, **fenced, idempotency_key=tool)
        assert again["duplicate"] is True
    if is_of_session:
        assert (await bob.call("get_session", session_id=session_id))["message_count"] == 2


async def test_lost_leases_and_bad_arguments_have_their_status_over_rest(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, headers=headers_of("alice")) as alice:
        write = {"key": "k", "value": 1, "lease": "deploy", "fencing_token": 1}
        answer = await alice.post("/mcp/tool/set_memory", json=write)
        assert (answer.status_code, answer.json()["code"]) == (409, "LEASE_LOST")


async def test_each_bad_argument_is_named(as_agent: As) -> None:
    alice = await as_agent("alice")
    session_id = await new_session(alice)
    name = {"name": "deploy"}
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("acquire_lease", {}, "name"),
        ("acquire_lease", {"name": ""}, "name"),
        ("acquire_lease", {"name": "n" * 256}, "name"),
        ("acquire_lease", {**name, "ttl_seconds": 0}, "ttl_seconds"),
        ("acquire_lease", {**name, "ttl_seconds": 86_401}, "ttl_seconds"),
        ("acquire_lease", {**name, "wait_seconds": -1}, "wait_seconds"),
        ("acquire_lease", {**name, "wait_seconds": 121}, "wait_seconds"),
        ("acquire_lease", {**name, "wait": 1}, "wait"),
        ("release_lease", name, "fencing_token"),
        ("release_lease", {**name, "fencing_token": 0}, "fencing_token"),
        ("set_memory", {"key": "k", "value": 1, "lease": "deploy"}, "fencing_token"),
        ("set_memory", {"key": "k", "value": 1, "fencing_token": 1}, "lease"),
        (
            "add_message",
            {"session_id": session_id, "content": "x", "lease": "deploy"},
            "fencing_token",
        ),
        ("add_message", {"session_id": session_id, "content": "x", "fencing_token": 1}, "lease"),
    ]
    for tool, arguments, field in cases:
        assert_refused(await alice.call(tool, **arguments), "INVALID_ARGUMENT", field)


async def test_a_release_lets_one_of_those_who_wait_in(as_agent: As, server: Server) -> None:
    alice, bob, carol = await as_agent("alice"), await as_agent("bob"), await as_agent("carol")
    session_id = await new_session(alice)
    lease = {"name": "deploy", "session_id": session_id}
    token = await acquire(alice, **lease)
    wait = {**lease, "wait_seconds": PATIENCE_S}
    tasks = await waiting(
        server, 2, bob.call("acquire_lease", **wait), carol.call("acquire_lease", **wait)
    )
    await alice.call("acquire_lease", name="other", session_id=session_id)
    await acquire(alice, **lease)  # a renewal lets nobody in
    assert not any(task.done() for task in tasks)
    await alice.call("release_lease", **lease, fencing_token=token)
    done, others = await asyncio.wait(
        tasks, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_S
    )
    (first,) = done
    assert (first.result()["acquired"], first.result()["fencing_token"]) == (True, token + 1)
    winner = bob if first is tasks[0] else carol
    await winner.call("release_lease", **lease, fencing_token=token + 1)
    (last,) = others
    assert (await last)["fencing_token"] == token + 2


async def test_an_expiry_lets_in_who_waits(as_agent: As) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    token = await acquire(alice, ttl_seconds=1)
    answer = await bob.call("acquire_lease", name="deploy", wait_seconds=PATIENCE_S)
    assert (answer["acquired"], answer["fencing_token"]) == (True, token + 1)
    write = {"key": "k", "value": 1, "lease": "deploy"}
    assert_refused(
        await alice.call("set_memory", **write, fencing_token=token), "LEASE_LOST", "fencing_token"
    )


async def test_the_time_to_wait_runs_out(as_agent: As, server: Server) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    held = await alice.call("acquire_lease", name="deploy")
    answer = await bob.call("acquire_lease", name="deploy", wait_seconds=0.05)
    assert not answer.is_error
    assert answer.body == held.body | {"acquired": False, "fencing_token": None}
    assert server.services.bus.subscriber_count == 0


async def test_a_token_revoked_meanwhile_takes_no_lease(as_agent: As, server: Server) -> None:
    alice, nobody = await as_agent("alice"), await as_agent(None)
    token = (await nobody.call("authenticate_agent", agent_id="bob", api_key=API_KEY))["token"]
    held = await acquire(alice)
    wait = {"name": "deploy", "wait_seconds": PATIENCE_S, "auth_token": token}
    (task,) = await waiting(server, 1, nobody.call("acquire_lease", **wait))
    await nobody.call("revoke_token", auth_token=token)
    await alice.call("release_lease", name="deploy", fencing_token=held)
    assert_refused(await task, "UNAUTHENTICATED")
    assert (await alice.call("list_leases"))["count"] == 0
    assert await acquire(alice) == held + 1  # bob had none in between


async def test_an_invited_session_hides_its_leases_from_strangers(as_agent: As) -> None:
    alice, bob, eve = await as_agent("alice"), await as_agent("bob"), await as_agent("eve")
    session_id = await new_session(alice, access="invited", participants=["bob"])
    lease = {"name": "deploy", "session_id": session_id}
    token = await acquire(bob, **lease)
    for tool, arguments in {
        "acquire_lease": {"name": "deploy", "wait_seconds": 5},
        "release_lease": {"name": "deploy", "fencing_token": token},
        "list_leases": {},
    }.items():
        refused = await eve.call(tool, session_id=session_id, **arguments)
        assert_refused(refused, "SESSION_NOT_FOUND", "session_id")
    assert (await eve.call("list_leases"))["leases"] == []
    assert (await alice.call("list_leases", session_id=session_id))["count"] == 1


async def test_a_closed_session_gives_no_lease_and_takes_them_back(
    as_agent: As, server: Server
) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    session_id = await new_session(alice)
    lease = {"name": "deploy", "session_id": session_id}
    token = await acquire(alice, **lease)
    (task,) = await waiting(server, 1, bob.call("acquire_lease", **lease, wait_seconds=PATIENCE_S))
    await alice.call("close_session", session_id=session_id)
    assert_refused(await task, "SESSION_CLOSED", "session_id")
    assert_refused(await alice.call("acquire_lease", **lease), "SESSION_CLOSED", "session_id")
    assert (await bob.call("list_leases", session_id=session_id))["count"] == 1
    released = await alice.call("release_lease", **lease, fencing_token=token)
    assert released["released"] is True
    await alice.call("delete_session", session_id=session_id)
    gone = await alice.call("list_leases", session_id=session_id)
    assert_refused(gone, "SESSION_NOT_FOUND", "session_id")


async def test_readers_may_look_and_nothing_else(as_agent: As) -> None:
    admin, writer = await as_agent("root", api_key=ADMIN_API_KEY), await as_agent("alice")
    token = await acquire(writer)
    granted = await writer.call(
        "authenticate_agent", agent_id="alice", requested_permissions=["read"]
    )
    reads = {"auth_token": granted["token"]}
    assert (await writer.call("list_leases", **reads))["count"] == 1
    for tool, arguments in {"acquire_lease": {}, "release_lease": {"fencing_token": token}}.items():
        refused = await writer.call(tool, name="deploy", **arguments, **reads)
        assert_refused(refused, "PERMISSION_DENIED")
    nobody = await as_agent(None)
    assert_refused(await nobody.call("list_leases"), "UNAUTHENTICATED")
    # An admin is no holder: the lease is the agent's.
    assert (await admin.call("acquire_lease", name="deploy"))["acquired"] is False


async def test_who_hangs_up_waits_no_longer(as_agent: As, server: Server, url: str) -> None:
    alice = await as_agent("alice")
    token = await acquire(alice)
    async with RestSurface(url, headers_of("bob")) as bob:
        call = bob.call("acquire_lease", name="deploy", wait_seconds=120)
        (task,) = await waiting(server, 1, call)
        task.cancel()
        await until(lambda: server.services.bus.subscriber_count == 0)
    await alice.call("release_lease", name="deploy", fencing_token=token)
    assert (await alice.call("list_leases"))["leases"] == []


@pytest.mark.parametrize("mode", [MODERN, "legacy"])
async def test_leases_and_shared_memory_of_a_session_are_resources(url: str, mode: str) -> None:
    async with (
        RestSurface(url, headers_of("alice")) as alice,
        client_of(url, headers_of("alice"), mode) as client,
        client_of(url, headers_of("eve"), mode) as eve,
    ):
        session_id = await new_session(alice, access="invited")
        await acquire(alice, session_id=session_id)
        for scope in ("shared", "private"):
            write = {"key": scope, "value": 1, "scope": scope}
            await alice.call("set_memory", session_id=session_id, **write)
        for name, tool, arguments in (
            ("leases", "list_leases", {}),
            ("memory", "list_memory", {"scope": "shared"}),
        ):
            uri = f"session://{session_id}/{name}"
            read = json.loads((await client.read_resource(uri))[0].text)  # type: ignore[union-attr]
            assert read == (await alice.call(tool, session_id=session_id, **arguments)).body
            assert read["count"] == 1
            with pytest.raises(Exception, match="not found"):
                await eve.read_resource(uri)


async def test_a_lease_on_paths_waits_for_the_holder_of_overlapping_ones(
    as_agent: As, server: Server
) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    session_id = await new_session(alice)
    mine = {"name": "parser", "session_id": session_id, "paths": ["./src/", "a.md"]}
    first = await alice.call("acquire_lease", **mine, ttl_seconds=100)
    assert first["paths"] == ["src/**", "a.md"]
    other = {"name": "fix", "session_id": session_id, "paths": ["**/*.py"]}
    refused = await bob.call("acquire_lease", **other)
    assert refused.body == first.body | {"acquired": False, "fencing_token": None}
    (listed,) = (await bob.call("list_leases", session_id=session_id))["leases"]
    assert listed["paths"] == ["src/**", "a.md"]
    (waits,) = await waiting(server, 1, bob.call("acquire_lease", **other, wait_seconds=PATIENCE_S))
    await alice.call("release_lease", name="parser", session_id=session_id, fencing_token=1)
    got = await waits
    assert (got["acquired"], got["name"], got["paths"]) == (True, "fix", ["**/*.py"])
    for paths in (["../x"], ["[a"], ["x"] * 21):
        wrong = await bob.call("acquire_lease", name="x", session_id=session_id, paths=paths)
        assert_refused(wrong, "INVALID_ARGUMENT", "paths")
