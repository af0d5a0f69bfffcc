"""Messages that need an answer, and recipients that nobody knows, over REST and both eras of MCP."""

from __future__ import annotations

from typing import Any

from shared_context_server.server import Server
from tests.settings import ADMIN_API_KEY
from tests.surfaces.conftest import As
from tests.surfaces.test_contract import assert_refused, new_session
from tests.surfaces.test_waiting import PATIENCE_S, waiting

NOTHING_TOLD = {"acknowledged_by": None, "awaiting": None}


async def test_the_sender_is_woken_by_an_acknowledgement_and_sees_who_has_not(
    as_agent: As, server: Server
) -> None:
    alice, bob, carol = [await as_agent(name) for name in ("alice", "bob", "carol")]
    session_id = await new_session(alice)
    added = await alice.call(
        "add_message",
        session_id=session_id,
        content="@bob @carol stop now",
        recipients=["bob", "carol"],
        requires_ack=True,
    )
    asking = {"session_id": session_id, "message_id": added["message_id"]}
    (shown,) = (await bob.call("get_messages", session_id=session_id))["messages"]
    assert shown["requires_ack"] is True
    before = await alice.call("acknowledge_message", **asking)
    assert before.body == {
        "success": True,
        "acknowledged": False,
        "acknowledged_at": None,
        "acknowledged_by": [],
        "awaiting": ["bob", "carol"],
    }
    (woken,) = await waiting(
        server,
        1,
        alice.call(
            "wait_for_messages",
            session_id=session_id,
            timeout_seconds=PATIENCE_S,
            mentions_me=True,
        ),
    )
    first = await bob.call("acknowledge_message", **asking)
    assert first.body | NOTHING_TOLD == first.body
    assert first["acknowledged"] is True
    assert await bob.call("acknowledge_message", **asking) == first
    (told,) = (await woken)["messages"]
    assert (told["sender"], told["visibility"], told["recipients"]) == ("bob", "private", ["alice"])
    assert told["metadata"] == {"type": "acknowledgement", "message_id": added["message_id"]}
    assert told["parent_message_id"] == added["message_id"]
    assert "requires_ack" not in told
    after = await alice.call("acknowledge_message", **asking)
    acknowledged = {"agent_id": "bob", "acknowledged_at": first["acknowledged_at"]}
    assert (after["acknowledged_by"], after["awaiting"]) == ([acknowledged], ["carol"])
    admin = await as_agent("root", api_key=ADMIN_API_KEY)
    assert await admin.call("acknowledge_message", **asking) == after
    dave = await as_agent("dave")
    assert_refused(await dave.call("acknowledge_message", **asking), "PERMISSION_DENIED")
    # The others see neither who has acknowledged nor that anybody has.
    assert len((await carol.call("get_messages", session_id=session_id))["messages"]) == 1
    await alice.call("close_session", session_id=session_id)
    assert_refused(
        await carol.call("acknowledge_message", **asking), "SESSION_CLOSED", "session_id"
    )
    assert await bob.call("acknowledge_message", **asking) == first
    assert await alice.call("acknowledge_message", **asking) == after


async def test_who_may_acknowledge_is_who_may_see_the_message(as_agent: As) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    session_id = await new_session(alice)

    async def add(**arguments: Any) -> dict[str, Any]:
        answer = await alice.call("add_message", session_id=session_id, content="x", **arguments)
        assert not answer.is_error, answer.body
        return {"session_id": session_id, "message_id": answer["message_id"]}

    everyone = await add(requires_ack=True)
    assert (await bob.call("acknowledge_message", **everyone))["acknowledged"] is True
    told = await alice.call("acknowledge_message", **everyone)
    assert [one["agent_id"] for one in told["acknowledged_by"]] == ["bob"]
    assert told["awaiting"] == []
    secret = await add(requires_ack=True, visibility="private", recipients=["carol"])
    refused = await bob.call("acknowledge_message", **secret)
    assert_refused(refused, "MESSAGE_NOT_FOUND", "message_id")
    plain = await add()
    refused = await bob.call("acknowledge_message", **plain)
    assert_refused(refused, "INVALID_ARGUMENT", "message_id")
    refused = await alice.call(
        "add_message",
        session_id=session_id,
        content="note",
        visibility="private",
        recipients=["alice"],
        requires_ack=True,
    )
    assert_refused(refused, "INVALID_ARGUMENT", "requires_ack")


async def test_recipients_that_the_server_has_never_seen_are_named(as_agent: As) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    await bob.call("get_time")
    session_id = await new_session(alice, participants=["invited"])

    async def unknown(**arguments: Any) -> Any:
        added = await alice.call("add_message", session_id=session_id, content="x", **arguments)
        return added.body.get("unknown_recipients", "left out")

    assert await unknown(recipients=["bbo", "bob", "invited", "alice", "craol", "bbo"]) == [
        "bbo",
        "craol",
    ]
    assert await unknown(recipients=["bob"]) == "left out"
    assert await unknown() == "left out"
    key = {"recipients": ["bbo"], "idempotency_key": "once"}
    assert [await unknown(**key), await unknown(**key)] == [["bbo"], ["bbo"]]
