"""Messages that were removed for their age: what readers, writers and searches are told on each surface."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from shared_context_server.models import Access, Ack, Visibility
from shared_context_server.server import Server, open_server
from shared_context_server.services import feeds
from shared_context_server.services.retention import remove_old_messages
from shared_context_server.steady_time import utc_now
from shared_context_server.storage import open_storage
from tests.rest.test_events import follow
from tests.storage.builders import BOB, CAROL, add_message, add_session, allow, make_audit
from tests.surfaces.conftest import As, headers_of

OLD = timedelta(days=3)
SESSION = {"session_id": "session_1"}


async def fill(server: Server) -> int:
    """A session with three old messages and two new ones; return the id of the first."""
    store, now = server.services.store, utc_now()
    await add_session(store, created_at=now - OLD)
    old: dict[str, Any] = {"created_at": now - OLD, "sender": BOB, "recipients": ("alice",)}
    first = await add_message(store, content="a walrus @alice", ack=Ack.REQUIRED, **old)
    for content in ("two", "three"):
        await add_message(store, content=content, **old)
    new: dict[str, Any] = {"created_at": now, "sender": CAROL}
    await add_message(store, content="four", parent_message_id=first.id, **new)
    await add_message(store, content="five", **new)
    return first.id


async def retain(server: Server) -> int:
    settings = server.settings.model_copy(update={"message_retention_days": 1})
    services = replace(server.services, settings=settings)
    return sum([removed async for _, removed in remove_old_messages(services)])


async def test_readers_are_told_where_the_log_begins_and_others_what_is_gone(
    server: Server, as_agent: As
) -> None:
    alice = await as_agent("alice")
    first_id = await fill(server)
    for tool in ("get_messages", "get_digest"):
        assert (await alice.call(tool, **SESSION))["first_seq"] == 1
    told = await alice.call("wait_for_messages", **SESSION, after_seq=0)
    assert "first_seqs" not in told.body
    assert (await alice.call("mark_read", **SESSION, seq=2))["unread"] == 3
    added = {"content": "once", "idempotency_key": "key"}
    once = await alice.call("add_message", **SESSION, **added)
    assert await retain(server) == 3

    shown = (await alice.call("get_session", **SESSION))["session"]
    assert (shown["first_seq"], shown["message_count"], shown["unread"]) == (4, 3, 2)
    assert (await alice.call("list_sessions"))["sessions"] == [shown]
    page = await alice.call("get_messages", **SESSION, after_seq=1, limit=2)
    assert [message["seq"] for message in page["messages"]] == [4, 5]
    assert (page["first_seq"], page["total_count"], page["has_more"]) == (4, 3, True)
    digest = await alice.call("get_digest", **SESSION)
    assert (digest["first_seq"], digest["message_count"]) == (4, 3)
    assert "Messages before seq 4 were removed by age." in digest["digest"]
    assert "removed" not in (await alice.call("get_digest", **SESSION, after_seq=3))["digest"]
    waited = await alice.call("wait_for_messages", **SESSION, after_seq=1)
    assert [message["seq"] for message in waited["messages"]] == [4, 5]
    assert waited["first_seqs"] == {"session_1": 4}
    several = await alice.call("wait_for_messages", session_ids=["session_1"])
    assert several["first_seqs"] == {"session_1": 4}
    assert (await alice.call("mark_read", **SESSION, seq=3))["unread"] == 2

    again = await alice.call("add_message", **SESSION, **added)
    assert (again["seq"], again["duplicate"]) == (once["seq"], True)
    reply = await alice.call("add_message", **SESSION, content="x", parent_message_id=first_id)
    assert (reply["code"], reply["details"]["field"]) == ("MESSAGE_NOT_FOUND", "parent_message_id")
    acknowledged = await alice.call("acknowledge_message", **SESSION, message_id=first_id)
    assert acknowledged["code"] == "MESSAGE_NOT_FOUND"
    replies = await alice.call("get_messages", **SESSION, parent_message_id=first_id)
    assert [message["content"] for message in replies["messages"]] == ["four"]
    assert (await alice.call("search_context", **SESSION, query="walrus"))["results"] == []


async def test_a_log_without_messages_goes_on_behind_the_last_one(
    server: Server, as_agent: As
) -> None:
    alice, store = await as_agent("alice"), server.services.store
    await add_session(store, created_at=utc_now() - OLD)
    for _ in range(3):
        await add_message(
            store, created_at=utc_now() - OLD, sender=BOB, visibility=Visibility.PRIVATE
        )
    await retain(server)
    page = await alice.call("get_messages", **SESSION)
    assert (page["messages"], page["first_seq"], page["total_count"]) == ([], 4, 0)
    for after_seq in (1, 3):
        for tool in ("get_messages", "get_digest"):
            late = await alice.call(tool, **SESSION, after_seq=after_seq)
            assert late["next_after_seq"] == 3
        waited = await alice.call(
            "wait_for_messages", **SESSION, after_seq=after_seq, timeout_seconds=0.01
        )
        assert waited["next_after_seq"] == 3
    assert (await alice.call("mark_read", **SESSION, seq=3))["unread"] == 0
    lost = await alice.call("get_messages", **SESSION, after_seq=4)
    assert lost["code"] == "CURSOR_LOST"
    assert (await alice.call("get_session", **SESSION))["session"]["unread"] == 0
    assert (await alice.call("add_message", **SESSION, content="x"))["seq"] == 4
    assert (await alice.call("get_messages", **SESSION, after_seq=1))["total_count"] == 1


async def test_a_stream_from_before_begins_with_a_hint_and_others_are_told_once_when_it_happens(
    server: Server, url: str
) -> None:
    """Of this process, which tells at once, and whose change stream has it too; and of another one."""
    await fill(server)
    store = server.services.store
    async with follow(url, "alice", "session_1") as live, follow(url, "alice") as everything:
        await retain(server)
        async with open_storage(server.settings) as other:
            await other.expiry.remove_some("session_1", utc_now(), lambda *_: make_audit())
            # Only the change stream tells of it, behind the removals.
            await other.sessions.close("session_1", utc_now(), allow, make_audit())
        for stream in (live, everything):
            found = []
            while (sent := await stream.next()).event != "session_closed":
                if sent.event == "messages_expired":
                    found.append((sent.id, sent.data))
            assert found == [
                (None, {"session_id": "session_1", "first_seq": first_seq}) for first_seq in (4, 6)
            ]
    assert (await store.sessions.get("session_1")).first_seq == 6


async def test_a_stream_that_goes_on_begins_with_what_was_removed_behind_its_last_id(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of all sessions with the sessions of which that is true."""
    monkeypatch.setattr(feeds, "REMOVALS_AT_ONCE", 2)
    await fill(server)
    store, old = server.services.store, utc_now() - OLD
    names = ["session_2", "session_3", "session_4"]
    for name in (*names, "invited"):
        access = Access.INVITED if name == "invited" else Access.OPEN
        await add_session(store, name, created_at=old, access=access, created_by="bob")
        last = await add_message(store, name, created_at=old)
    await retain(server)
    lost = [(name, 2) for name in names]
    for last_id, expected in ((2, [("session_1", 4), *lost]), (3, lost)):
        async with follow(url, "alice", last_id=last_id) as stream:
            for name, first_seq in expected:
                hint = await stream.next()
                assert (hint.event, hint.id) == ("messages_expired", None)
                assert hint.data == {"session_id": name, "first_seq": first_seq}
            assert [(await stream.next()).id for _ in range(2)] == [4, 5]
    for last_id in (last.id, None):
        async with follow(url, "alice", last_id=last_id) as stream:
            added = await add_message(store)
            assert (await stream.next()).id == added.id
    async with follow(url, "alice", "session_1", last_id=1) as stream:
        opening = await stream.next()
        assert (opening.event, opening.data["first_seq"]) == ("messages_expired", 4)
        assert [(await stream.next_message()).id for _ in range(2)] == [4, 5]
    async with follow(url, "alice", "session_1", last_id=3) as stream:
        assert (await stream.next()).id == 4


@pytest.mark.parametrize("by_another_process", [False, True])
async def test_unread_mentions_that_were_removed_are_not_told(
    server: Server, url: str, by_another_process: bool
) -> None:
    """Those that are left are, and those in a session that another process has deleted are not."""
    await fill(server)
    store, old = server.services.store, utc_now() - OLD
    for name in ("session_2", "session_3"):
        await add_session(store, name, created_at=old)
        await add_message(store, name, created_at=old, sender=BOB, content="@alice")
    await add_message(store, created_at=utc_now(), sender=BOB, content="@alice")
    async with httpx.AsyncClient(base_url=url, headers=headers_of("alice")) as alice:

        async def find_told(thread: str) -> dict[str, int]:
            """What an answer tells a thread that was told nothing yet."""
            answer = await alice.post(
                "/mcp/tool/get_time", json={}, headers={"X-Agent-Instance": thread}
            )
            told = json.loads(answer.headers.get("X-Unread-Mentions", '{"sessions": []}'))
            return {one["session_id"]: one["count"] for one in told["sessions"]}

        await find_told("first")
        await server.services.mentions.finish()
        everything = {"session_1": 4, "session_2": 1, "session_3": 1}
        assert await find_told("second") == everything
        if by_another_process:
            async with open_server(server.settings) as other:
                await other.services.store.sessions.delete("session_3", allow, make_audit())
                await retain(other)
        else:
            await server.services.store.sessions.delete("session_3", allow, make_audit())
            await retain(server)
        assert await find_told("third") == {"session_1": 1}
