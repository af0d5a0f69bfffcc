"""What a caller is told of others, and what agents may be called, on every surface."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

import pytest

from shared_context_server.models import Agent, AuditEntry, Permission
from shared_context_server.server import Server
from tests.settings import ADMIN_API_KEY, API_KEY
from tests.surfaces.conftest import As
from tests.surfaces.test_contract import assert_refused, new_session

HIDDEN = "ali\u200bce"


async def make_key(
    server: Server,
    agent_id: str,
    permissions: Collection[Permission],
    agent_type: str | None = None,
) -> str:
    _, key = await server.services.identity.keys.create(
        agent_id, permissions, agent_type=agent_type
    )
    return key


# A key that may write and not read


async def test_a_conflict_tells_the_stored_value_to_readers_only(
    server: Server, as_agent: As
) -> None:
    alice = await as_agent("alice")
    writer = await as_agent("writer", api_key=await make_key(server, "writer", [Permission.WRITE]))
    session_id = await new_session(alice)
    for place in ({"scope": "shared"}, {"scope": "shared", "session_id": session_id}):
        await alice.call("set_memory", key="plan", value={"secret": 1}, **place)
        for arguments, field in (
            ({"value": 1, "expected_version": 9}, "expected_version"),
            ({"value": 1, "mode": "create"}, "mode"),
            ({"value": 1, "mode": "append"}, "mode"),
            ({"mode": "increment"}, "mode"),
        ):
            told = await alice.call("set_memory", key="plan", **place, **arguments)
            assert_refused(told, "CONFLICT", field)
            assert told["details"]["current_value"] == {"secret": 1}
            untold = await writer.call("set_memory", key="plan", **place, **arguments)
            assert_refused(untold, "CONFLICT", field)
            assert untold["details"]["current_version"] == 1
            assert "secret" not in str(untold.body)
        removed = await writer.call("delete_memory", key="plan", expected_version=9, **place)
        assert_refused(removed, "CONFLICT", "expected_version")
        assert "secret" not in str(removed.body)


async def test_what_does_not_fit_does_not_tell_how_large_the_stored_text_is(
    server: Server, as_agent: As
) -> None:
    alice = await as_agent("alice")
    writer = await as_agent("writer", api_key=await make_key(server, "writer", [Permission.WRITE]))
    text = {"key": "text", "scope": "shared"}
    await alice.call("set_memory", value="x" * 200_000, **text)
    refused = await writer.call("set_memory", value="y" * 100_000, mode="append", **text)
    assert_refused(refused, "CONTENT_TOO_LARGE", "value")
    assert "300" not in refused["error"]


async def test_who_holds_a_lease_is_told_to_readers_only(server: Server, as_agent: As) -> None:
    alice = await as_agent("alice")
    writer = await as_agent("writer", api_key=await make_key(server, "writer", [Permission.WRITE]))
    session_id = await new_session(alice)
    place = {"session_id": session_id, "name": "deploy"}
    free = await writer.call(
        "add_message", session_id=session_id, content="x", lease="deploy", fencing_token=7
    )
    assert (await writer.call("acquire_lease", **place))["holder"] == "writer"
    mine = await writer.call("acquire_lease", **place)
    await writer.call("release_lease", **place, fencing_token=mine["fencing_token"])
    await alice.call("acquire_lease", **place)
    held = await writer.call("acquire_lease", **place)
    assert (held["acquired"], held["holder"]) == (False, None)
    lost = await writer.call(
        "add_message", session_id=session_id, content="x", lease="deploy", fencing_token=7
    )
    assert_refused(lost, "LEASE_LOST", "fencing_token")
    assert lost.body == free.body


async def test_a_writer_replies_to_its_own_messages_and_learns_of_no_others(
    server: Server, as_agent: As
) -> None:
    alice = await as_agent("alice")
    writer = await as_agent("writer", api_key=await make_key(server, "writer", [Permission.WRITE]))
    session_id = await new_session(alice)
    theirs = await alice.call("add_message", session_id=session_id, content="x")
    mine = await writer.call("add_message", session_id=session_id, content="y")
    for parent in (theirs["message_id"], 999_999):
        refused = await writer.call(
            "add_message", session_id=session_id, content="z", parent_message_id=parent
        )
        assert_refused(refused, "MESSAGE_NOT_FOUND", "parent_message_id")
    replied = await writer.call(
        "add_message", session_id=session_id, content="z", parent_message_id=mine["message_id"]
    )
    assert not replied.is_error


# What admins account with


async def test_the_audit_log_has_no_names_of_private_memory(server: Server, as_agent: As) -> None:
    alice = await as_agent("alice")
    admin = await as_agent("root", api_key=ADMIN_API_KEY)
    for scope in ("private", "shared"):
        await alice.call("set_memory", key=f"the {scope} plan", value=1, scope=scope)
        await alice.call("delete_memory", key=f"the {scope} plan", scope=scope)
    of_old = {"key": "an older private plan", "scope": "private"}
    await server.services.store.audit.add(AuditEntry("memory_deleted", "alice", None, of_old))
    listed = await admin.call("get_audit_log", event_type="memory_deleted")
    assert [entry["details"] for entry in listed["entries"]] == [
        {"scope": "private"},
        {"key": "the shared plan", "scope": "shared"},
        {"scope": "private"},
    ]


# What agents may be called


@pytest.mark.parametrize("name", [HIDDEN, "\uff41lice", "al\u202eice", "alice\u2028bob"])
async def test_a_name_that_could_pass_for_another_is_refused_wherever_it_is_new(
    as_agent: As, name: str
) -> None:
    alice = await as_agent("alice")
    session_id = await new_session(alice)
    for tool, field, arguments in (
        ("authenticate_agent", "agent_id", {"agent_id": name, "api_key": API_KEY}),
        (
            "authenticate_agent",
            "agent_type",
            {"agent_id": "bob", "agent_type": name, "api_key": API_KEY},
        ),
        ("create_session", "participants", {"purpose": "x", "participants": ["bob", name]}),
        (
            "add_message",
            "recipients",
            {
                "session_id": session_id,
                "content": "x",
                "visibility": "private",
                "recipients": [name],
            },
        ),
    ):
        refused = await alice.call(tool, **arguments)
        assert_refused(refused, "INVALID_ARGUMENT", field)
        assert "U+" in refused["error"]


async def test_an_agent_that_exists_can_be_written_to_whatever_it_is_called(
    server: Server, as_agent: As
) -> None:
    alice = await as_agent("alice")
    session_id = await new_session(alice)
    now = datetime.now(UTC)
    await server.services.store.agents.touch([Agent(HIDDEN, "generic", now, now)])
    to_them = {"visibility": "private", "recipients": [HIDDEN]}
    assert not (
        await alice.call("add_message", session_id=session_id, content="x", **to_them)
    ).is_error
    granted = await alice.call("authenticate_agent", agent_id=HIDDEN)
    page = await alice.call("get_messages", session_id=session_id, auth_token=granted["token"])
    assert [message["content"] for message in page["messages"]] == ["x"]
    found = await alice.call("get_messages", session_id=session_id, sender=HIDDEN)
    assert found["count"] == 0


async def test_a_key_bound_to_a_type_opens_no_other_types_messages(
    server: Server, as_agent: As
) -> None:
    key = await make_key(server, "bob", [Permission.READ, Permission.WRITE], "coder")
    planner = await as_agent("alice", agent_type="planner")
    bob = await as_agent("bob", api_key=key)
    session_id = await new_session(planner)
    await planner.call(
        "add_message", session_id=session_id, content="planners only", visibility="agent_only"
    )
    refused = await bob.call("authenticate_agent", agent_id="bob", agent_type="planner")
    assert_refused(refused, "PERMISSION_DENIED", "agent_type")
    granted = await bob.call("authenticate_agent", agent_id="bob")
    assert granted["agent_type"] == "coder"
    page = await bob.call("get_messages", session_id=session_id, auth_token=granted["token"])
    assert page["messages"] == []
