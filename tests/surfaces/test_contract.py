"""The contract of the tools, the same over REST and both eras of MCP."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared_context_server.tools.catalog import TOOLS
from tests.settings import ADMIN_API_KEY, API_KEY
from tests.surfaces.conftest import Answer, As, Surface


def assert_refused(answer: Answer, code: str, field: str | None = None) -> None:
    assert answer.is_error
    assert set(answer.body) == {"success", "error", "code", "details", "suggestion", "retryable"}
    assert answer["success"] is False
    assert answer["code"] == code
    assert answer["details"].get("field") == field


async def new_session(surface: Surface, **arguments: Any) -> str:
    created = await surface.call("create_session", purpose="test", **arguments)
    assert not created.is_error, created.body
    session_id: str = created["session_id"]
    return session_id


async def test_two_agents_share_a_session_and_find_what_they_wrote(as_agent: As) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    session_id = await new_session(alice, metadata={"project": "x"})
    first = await alice.call(
        "add_message", session_id=session_id, content="hello", metadata={"nested": {"a": [1, None]}}
    )
    second = await bob.call(
        "add_message", session_id=session_id, content="hi", parent_message_id=first["message_id"]
    )
    assert (first["seq"], second["seq"]) == (1, 2)
    assert isinstance(first["message_id"], int)
    page = await bob.call("get_messages", session_id=session_id, limit=10)
    assert [m["content"] for m in page["messages"]] == ["hello", "hi"]
    assert page["messages"][0]["metadata"] == {"nested": {"a": [1, None]}}
    assert page["messages"][1]["parent_message_id"] == first["message_id"]
    assert (page["count"], page["total_count"], page["has_more"]) == (2, 2, False)
    detail = await bob.call("get_session", session_id=session_id)
    assert detail["participants"] == ["alice", "bob"]
    assert detail["session"]["metadata"] == {"project": "x"}
    assert detail["message_count"] == 2


async def test_a_reader_by_cursor_goes_through_the_log_once(as_agent: As) -> None:
    alice = await as_agent("alice")
    session_id = await new_session(alice)
    for number in range(7):
        await alice.call("add_message", session_id=session_id, content=f"m{number}")
    seen: list[str] = []
    after_seq, has_more = 0, True
    while has_more:
        page = await alice.call("get_messages", session_id=session_id, after_seq=after_seq, limit=3)
        seen += [m["content"] for m in page["messages"]]
        after_seq, has_more = page["next_after_seq"], page["has_more"]
    assert seen == [f"m{number}" for number in range(7)]
    again = await alice.call("get_messages", session_id=session_id, after_seq=after_seq)
    assert (again["count"], again["next_after_seq"]) == (0, 7)


async def test_without_a_cursor_the_newest_come_in_order(as_agent: As) -> None:
    alice = await as_agent("alice")
    session_id = await new_session(alice)
    for number in range(5):
        await alice.call("add_message", session_id=session_id, content=f"m{number}")
    newest = await alice.call("get_messages", session_id=session_id, limit=2)
    assert [m["seq"] for m in newest["messages"]] == [4, 5]
    assert newest["has_more"] is True
    older = await alice.call("get_messages", session_id=session_id, limit=2, offset=2)
    assert [m["seq"] for m in older["messages"]] == [2, 3]


async def test_times_filter_as_rfc_3339_and_as_epoch_seconds(as_agent: As) -> None:
    alice = await as_agent("alice")
    session_id = await new_session(alice)
    added = await alice.call("add_message", session_id=session_id, content="now")
    moment = datetime.fromisoformat(added["timestamp"])
    assert added["timestamp"].endswith("Z")
    for later in ((moment + timedelta(seconds=1)).isoformat(), moment.timestamp() + 1):
        found = await alice.call("get_messages", session_id=session_id, start_time=later)
        assert found["count"] == 0
        found = await alice.call("get_messages", session_id=session_id, end_time=later)
        assert found["count"] == 1


async def test_visibility_decides_who_sees_a_message_and_what_is_counted(as_agent: As) -> None:
    alice = await as_agent("alice", agent_type="planner")
    bob = await as_agent("bob", agent_type="coder")
    carol = await as_agent("carol", agent_type="planner")
    admin = await as_agent("root", api_key=ADMIN_API_KEY)
    session_id = await new_session(alice)
    for content, extra in {
        "for all": {},
        "for bob": {"visibility": "private", "recipients": ["bob"]},
        "for planners": {"visibility": "agent_only"},
        "for admins": {"visibility": "admin_only"},
    }.items():
        added = await alice.call("add_message", session_id=session_id, content=content, **extra)
        assert not added.is_error
    for who, seen in {
        alice: ["for all", "for bob", "for planners"],
        bob: ["for all", "for bob"],
        carol: ["for all", "for planners"],
        admin: ["for all", "for bob", "for planners", "for admins"],
    }.items():
        page = await who.call("get_messages", session_id=session_id)
        assert [m["content"] for m in page["messages"]] == seen
        assert page["total_count"] == len(seen)
        found = await who.call("search_context", session_id=session_id, query="for", limit=100)
        assert {r["message"]["content"] for r in found["results"]} == set(seen)
        assert (found["scanned"], found["exhaustive"]) == (len(seen), True)
        listed = await who.call("list_sessions")
        assert listed["sessions"][0]["message_count"] == len(seen)
        assert listed["sessions"][0]["unread"] == len(seen)
        digest = await who.call("get_digest", session_id=session_id)
        assert digest["message_count"] == len(seen)
        assert ("for admins" in digest["digest"]) == ("for admins" in seen)


async def test_an_invited_session_does_not_exist_for_others(as_agent: As) -> None:
    alice, bob, eve = await as_agent("alice"), await as_agent("bob"), await as_agent("eve")
    session_id = await new_session(alice, access="invited", participants=["bob"])
    assert not (await bob.call("add_message", session_id=session_id, content="in")).is_error
    for tool, arguments in {
        "get_session": {},
        "get_messages": {},
        "add_message": {"content": "x"},
        "search_context": {"query": "in"},
        "get_digest": {},
        "mark_read": {"seq": 1},
        "close_session": {},
        "delete_session": {},
        "list_agents": {},
        "set_memory": {"key": "k", "value": 1},
        "list_memory": {"scope": "shared"},
    }.items():
        answer = await eve.call(tool, session_id=session_id, **arguments)
        assert_refused(answer, "SESSION_NOT_FOUND", "session_id")
    assert (await eve.call("list_sessions"))["sessions"] == []
    assert len((await bob.call("list_sessions"))["sessions"]) == 1


async def test_only_the_creator_or_an_admin_closes_and_deletes(as_agent: As) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    admin = await as_agent("root", api_key=ADMIN_API_KEY)
    session_id = await new_session(alice)
    for tool in ("close_session", "delete_session"):
        assert_refused(await bob.call(tool, session_id=session_id), "PERMISSION_DENIED")
    closed = await alice.call("close_session", session_id=session_id)
    assert closed["status"] == "closed"
    refused = await bob.call("add_message", session_id=session_id, content="late")
    assert_refused(refused, "SESSION_CLOSED", "session_id")
    assert not (await bob.call("get_messages", session_id=session_id)).is_error
    assert (await admin.call("delete_session", session_id=session_id))["deleted"] is True
    gone = await alice.call("get_session", session_id=session_id)
    assert_refused(gone, "SESSION_NOT_FOUND", "session_id")
    entries = (await admin.call("get_audit_log", session_id=session_id))["entries"]
    assert [entry["event_type"] for entry in entries] == [
        "session_deleted",
        "session_closed",
        "session_created",
    ]


async def test_each_kind_of_bad_input_has_its_own_code_and_field(as_agent: As) -> None:
    alice = await as_agent("alice")
    session_id = await new_session(alice)
    s = {"session_id": session_id}
    cases: list[tuple[str, dict[str, Any], str, str | None]] = [
        ("add_message", {**s, "content": 5}, "INVALID_ARGUMENT", "content"),
        ("add_message", {**s, "content": ""}, "INVALID_ARGUMENT", "content"),
        ("add_message", {**s}, "INVALID_ARGUMENT", "content"),
        ("add_message", {**s, "content": "x" * 100_001}, "CONTENT_TOO_LARGE", "content"),
        (
            "add_message",
            {**s, "content": "x", "visibility": "secret"},
            "INVALID_ARGUMENT",
            "visibility",
        ),
        ("add_message", {**s, "content": "x", "colour": "red"}, "INVALID_ARGUMENT", "colour"),
        ("add_message", {**s, "content": "x", "metadata": "{}"}, "INVALID_ARGUMENT", "metadata"),
        ("add_message", {**s, "content": "x", "metadata": [1]}, "INVALID_ARGUMENT", "metadata"),
        (
            "add_message",
            {**s, "content": "x", "recipients": "bob"},
            "INVALID_ARGUMENT",
            "recipients",
        ),
        (
            "add_message",
            {**s, "content": "x", "parent_message_id": 999},
            "MESSAGE_NOT_FOUND",
            "parent_message_id",
        ),
        (
            "add_message",
            {"session_id": "session_0000000000000000", "content": "x"},
            "SESSION_NOT_FOUND",
            "session_id",
        ),
        ("get_messages", {**s, "limit": 0}, "INVALID_ARGUMENT", "limit"),
        ("get_messages", {**s, "limit": 1001}, "INVALID_ARGUMENT", "limit"),
        ("get_messages", {**s, "limit": True}, "INVALID_ARGUMENT", "limit"),
        ("get_messages", {**s, "visibility": "PUBLIC"}, "INVALID_ARGUMENT", "visibility"),
        ("get_messages", {**s, "start_time": "yesterday"}, "INVALID_ARGUMENT", "start_time"),
        ("get_messages", {**s, "after_seq": -1}, "INVALID_ARGUMENT", "after_seq"),
        ("search_context", {**s, "query": ""}, "INVALID_ARGUMENT", "query"),
        ("search_context", {**s, "query": "x", "mode": "semantic"}, "INVALID_ARGUMENT", "mode"),
        ("search_context", {**s, "query": "x", "cursor": "nonsense"}, "INVALID_ARGUMENT", "cursor"),
        (
            "search_context",
            {**s, "query": "x", "fuzzy_threshold": 101},
            "INVALID_ARGUMENT",
            "fuzzy_threshold",
        ),
        ("mark_read", {**s, "seq": 99}, "INVALID_ARGUMENT", "seq"),
        ("create_session", {"purpose": "p" * 501}, "INVALID_ARGUMENT", "purpose"),
        ("list_sessions", {"cursor": "nonsense"}, "INVALID_ARGUMENT", "cursor"),
        ("set_memory", {"key": "k"}, "INVALID_ARGUMENT", "value"),
        ("set_memory", {"key": "", "value": 1}, "INVALID_ARGUMENT", "key"),
        ("set_memory", {"key": "k" * 256, "value": 1}, "INVALID_ARGUMENT", "key"),
        ("set_memory", {"key": "k", "value": "x" * 262_145}, "CONTENT_TOO_LARGE", "value"),
        ("set_memory", {"key": "k", "value": 1, "expires_in": 0}, "INVALID_ARGUMENT", "expires_in"),
        (
            "set_memory",
            {"key": "k", "value": 1, "expected_version": 4},
            "CONFLICT",
            "expected_version",
        ),
        ("get_memory", {"key": "absent"}, "MEMORY_NOT_FOUND", "key"),
        ("get_audit_log", {}, "PERMISSION_DENIED", None),
        ("no_such_tool", {}, "TOOL_NOT_FOUND", None),
    ]
    for tool, arguments, code, field in cases:
        assert_refused(await alice.call(tool, **arguments), code, field)


async def test_a_null_optional_argument_equals_a_missing_one(as_agent: As) -> None:
    alice = await as_agent("alice")
    session_id = await new_session(alice, participants=None)
    added = await alice.call(
        "add_message", session_id=session_id, content="x", metadata=None, parent_message_id=None
    )
    assert not added.is_error
    nothing = {"sender": None, "after_seq": None, "limit": None, "start_time": None}
    assert (await alice.call("get_messages", session_id=session_id, **nothing))["count"] == 1
    refused = await alice.call("add_message", session_id=session_id, content=None)
    assert_refused(refused, "INVALID_ARGUMENT", "content")


async def test_a_repeated_idempotency_key_writes_once_and_answers_the_same(as_agent: As) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    session_id = await new_session(alice)
    call = {"session_id": session_id, "content": "once", "idempotency_key": "k1"}
    answers = await asyncio.gather(*(alice.call("add_message", **call) for _ in range(5)))
    assert len({(a["message_id"], a["seq"], a["timestamp"]) for a in answers}) == 1
    assert sorted(a["duplicate"] for a in answers) == [False, True, True, True, True]
    other = await alice.call("add_message", **(call | {"content": "another"}))
    assert_refused(other, "CONFLICT", "idempotency_key")
    assert (await bob.call("add_message", **call))["seq"] == 2
    counted = {"key": "n", "mode": "increment", "idempotency_key": "k2"}
    assert [(await alice.call("set_memory", **counted))["version"] for _ in range(3)] == [1, 1, 1]
    assert (await alice.call("get_memory", key="n"))["value"] == 1


async def test_memory_keeps_any_json_value(as_agent: As) -> None:
    alice = await as_agent("alice")
    values = [None, True, 0, -1.5, "", "ü", [], {}, {"a": [{"b": None}]}, 2**63 - 1]
    for number, value in enumerate(values):
        place = {"key": f"k{number}"}
        written = await alice.call("set_memory", **place, value=value, metadata={"m": 1})
        assert (written["version"], written["scope"]) == (1, "private")
        read = await alice.call("get_memory", **place)
        assert read["value"] == value
        assert type(read["value"]) is type(value)
        assert read["metadata"] == {"m": 1}


async def test_memory_versions_guard_against_overwriting(as_agent: As) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    session_id = await new_session(alice)
    place = {"key": "plan", "session_id": session_id, "scope": "shared"}
    created = await alice.call("set_memory", **place, value={"a": 1}, expected_version=0)
    assert created["version"] == 1
    won = await alice.call("set_memory", **place, value={"b": 2}, mode="merge", expected_version=1)
    assert won["version"] == 2
    lost = await bob.call("set_memory", **place, value={}, expected_version=1)
    assert_refused(lost, "CONFLICT", "expected_version")
    assert lost["details"]["current_version"] == 2
    assert lost["details"]["current_value"] == {"a": 1, "b": 2}
    stale = await bob.call("delete_memory", **place, expected_version=1)
    assert_refused(stale, "CONFLICT", "expected_version")
    assert (await bob.call("delete_memory", **place, expected_version=2))["deleted"] is True


async def test_private_memory_is_the_agents_own_even_for_admins(as_agent: As) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    admin = await as_agent("root", api_key=ADMIN_API_KEY)
    session_id = await new_session(alice)
    for place in ({}, {"session_id": session_id}):
        await alice.call("set_memory", key="secret", value=1, **place)
        for other in (bob, admin):
            read = await other.call("get_memory", key="secret", **place)
            assert_refused(read, "MEMORY_NOT_FOUND", "key")
            assert (await other.call("list_memory", **place))["entries"] == []
            removed = await other.call("delete_memory", key="secret", **place)
            assert_refused(removed, "MEMORY_NOT_FOUND", "key")
    shared = await bob.call("get_memory", key="secret", scope="shared")
    assert_refused(shared, "MEMORY_NOT_FOUND", "key")


async def test_memory_lists_by_literal_prefix_in_pages(as_agent: As) -> None:
    alice = await as_agent("alice")
    for key in ("a_1", "a_2", "a%1", "A_1", "b"):
        await alice.call("set_memory", key=key, value=key)
    page = await alice.call("list_memory", prefix="a_", limit=1)
    assert [entry["key"] for entry in page["entries"]] == ["a_1"]
    rest = await alice.call("list_memory", prefix="a_", limit=1, cursor=page["next_cursor"])
    assert [entry["key"] for entry in rest["entries"]] == ["a_2"]
    assert rest["next_cursor"] is None


async def test_a_read_position_moves_only_forward(as_agent: As) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    session_id = await new_session(alice)
    for number in range(4):
        await alice.call("add_message", session_id=session_id, content=f"m{number}")
    assert (await bob.call("mark_read", session_id=session_id, seq=3)).body == {
        "success": True,
        "seq": 3,
        "unread": 1,
    }
    assert (await bob.call("mark_read", session_id=session_id, seq=1))["seq"] == 3
    assert (await bob.call("list_sessions"))["sessions"][0]["unread"] == 1
    digest = await bob.call("get_digest", session_id=session_id)
    assert (digest["message_count"], digest["next_after_seq"]) == (1, 4)


async def test_sessions_are_listed_in_pages_newest_first(as_agent: As) -> None:
    alice = await as_agent("alice")
    made = [await new_session(alice) for _ in range(5)]
    await alice.call("close_session", session_id=made[0])
    listed: list[str] = []
    cursor = None
    while True:
        page = await alice.call("list_sessions", limit=2, cursor=cursor, status="all")
        listed += [session["session_id"] for session in page["sessions"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert listed == made[::-1]
    active = await alice.call("list_sessions")
    assert made[0] not in [session["session_id"] for session in active["sessions"]]
    assert (await alice.call("list_sessions", created_by="nobody"))["sessions"] == []


async def test_a_search_finds_typos_and_metadata_and_obeys_its_filters(as_agent: As) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    session_id = await new_session(alice)
    for number in range(12):
        content = f"TASK ASSIGNMENT: worker-{number}"
        metadata = {"worker": number, "topic": "refactoring"}
        await alice.call("add_message", session_id=session_id, content=content, metadata=metadata)
    await bob.call("add_message", session_id=session_id, content="all tasks are assigned now")
    search = {"session_id": session_id, "fuzzy_threshold": 60.0}
    found = await bob.call("search_context", **search, query="TASK ASSIGNMENT: worker-7")
    assert found["results"][0]["message"]["content"] == "TASK ASSIGNMENT: worker-7"
    assert found["results"][0]["message"]["metadata"] == {"worker": 7, "topic": "refactoring"}
    assert found["count"] == len(found["results"]) == 10
    typo = await bob.call("search_context", **search, query="asignment worker-3")
    assert typo["results"][0]["message"]["content"] == "TASK ASSIGNMENT: worker-3"
    topic = await bob.call("search_context", **search, query="refactoring", limit=100)
    assert topic["count"] == 12
    content_only = await bob.call(
        "search_context", **search, query="refactoring", search_metadata=False
    )
    assert content_only["count"] == 0
    by_bob = await bob.call("search_context", **search, query="task", sender="bob")
    assert [r["message"]["sender"] for r in by_bob["results"]] == ["bob"]
    late = await alice.call("add_message", session_id=session_id, content="zebra crossing")
    again = await bob.call("search_context", **search, query="zebra")
    assert again["results"][0]["message"]["id"] == late["message_id"]


async def test_agents_are_listed_with_their_last_sign_of_life(as_agent: As) -> None:
    alice, bob = await as_agent("alice", agent_type="planner"), await as_agent("bob")
    session_id = await new_session(alice)
    await bob.call("list_sessions")
    everyone = await alice.call("list_agents")
    assert {agent["agent_id"] for agent in everyone["agents"]} == {"alice", "bob"}
    members = await alice.call("list_agents", session_id=session_id)
    assert [(a["agent_id"], a["agent_type"], a["active"]) for a in members["agents"]] == [
        ("alice", "planner", True)
    ]


async def test_the_anonymous_may_only_authenticate(as_agent: As) -> None:
    nobody = await as_agent(None)
    for tool in TOOLS:
        answer = await nobody.call(tool.name)
        if tool.name == "authenticate_agent":
            assert_refused(answer, "INVALID_ARGUMENT", "agent_id")
        else:
            assert_refused(answer, "UNAUTHENTICATED")
    refused = await nobody.call("list_sessions")
    assert_refused(refused, "UNAUTHENTICATED")
    assert "authenticate_agent" in refused["suggestion"]


async def test_asking_for_more_than_a_key_allows_grants_what_it_allows(as_agent: As) -> None:
    nobody = await as_agent(None)
    granted = await nobody.call(
        "authenticate_agent",
        agent_id="worker",
        agent_type="generic",
        api_key=API_KEY,
        requested_permissions=["read", "write", "admin"],
    )
    assert granted["permissions"] == ["read", "write"]
    mine = await nobody.call("list_sessions", auth_token=granted["token"])
    assert mine["sessions"] == []
    wrong = await nobody.call("authenticate_agent", agent_id="worker", api_key="wrong-key")
    assert_refused(wrong, "UNAUTHENTICATED", "api_key")


async def test_a_handle_works_only_beside_the_key_that_issued_it(as_agent: As) -> None:
    lead = await as_agent("lead")
    admin = await as_agent("root", api_key=ADMIN_API_KEY)
    nobody = await as_agent(None)
    sub = await lead.call("authenticate_agent", agent_id="sub-1")
    handle = {"auth_token": sub["agent_handle"]}
    made = await lead.call("create_session", purpose="by the sub-agent", **handle)
    assert made["created_by"] == "sub-1"
    for other in (admin, nobody):
        answer = await other.call("list_sessions", **handle)
        assert answer["code"] in ("PERMISSION_DENIED", "UNAUTHENTICATED")
    bad = await lead.call("list_sessions", auth_token="agt_0000000000000000000000")
    assert_refused(bad, "UNAUTHENTICATED", "auth_token")


async def test_a_revoked_token_is_refused_at_once_and_its_handle_too(as_agent: As) -> None:
    lead = await as_agent("lead")
    sub = await lead.call("authenticate_agent", agent_id="sub-1")
    revoked = await lead.call("revoke_token", auth_token=sub["token"])
    assert revoked["revoked"] is True
    for credential in (sub["token"], sub["agent_handle"]):
        answer = await lead.call("list_sessions", auth_token=credential)
        assert_refused(answer, "UNAUTHENTICATED", "auth_token")


async def test_a_refreshed_token_is_the_same_agent(as_agent: As) -> None:
    nobody = await as_agent(None)
    first = await nobody.call("authenticate_agent", agent_id="worker", api_key=API_KEY)
    second = await nobody.call("refresh_token", auth_token=first["token"])
    assert second["token"] != first["token"]
    assert second["agent_id"] == "worker"
    assert not (await nobody.call("list_sessions", auth_token=second["token"])).is_error


async def test_an_empty_text_for_an_optional_argument_counts_as_missing(as_agent: As) -> None:
    alice = await as_agent("alice")
    session_id = await new_session(alice, participants="", metadata="", access="")
    added = await alice.call(
        "add_message",
        session_id=session_id,
        content="hello",
        auth_token="",
        visibility="",
        recipients="",
        metadata="",
        parent_message_id="",
        idempotency_key="",
        lease="",
        fencing_token="",
    )
    assert not added.is_error, added
    page = await alice.call(
        "get_messages", session_id=session_id, limit="", after_seq="", sender="", start_time=""
    )
    assert [message["sender"] for message in page["messages"]] == ["alice"]
    await alice.call("set_memory", key="k", value="", session_id="", expires_in="")
    assert (await alice.call("get_memory", key="k", scope=""))["value"] == ""
    for name in ("session_id", "content"):
        arguments = {"session_id": session_id, "content": "c"} | {name: ""}
        refused = await alice.call("add_message", **arguments)
        assert (refused["code"], refused["details"]["field"]) == ("INVALID_ARGUMENT", name)


@pytest.mark.parametrize("name", ["sessionId", "session-id", "SESSION_ID", "sesion_id"])
async def test_an_argument_written_otherwise_is_refused_with_its_name(
    as_agent: As, name: str
) -> None:
    alice = await as_agent("alice")
    refused = await alice.call("get_session", **{name: "session_0"})
    assert (refused["code"], refused["details"]["field"]) == ("INVALID_ARGUMENT", name)
    assert refused["suggestion"].startswith("Did you mean session_id?")


@pytest.mark.parametrize("name", ["addMessage", "add-message", "send_message", "add_mesage"])
async def test_a_tool_written_otherwise_is_refused_with_its_name(as_agent: As, name: str) -> None:
    alice = await as_agent("alice")
    refused = await alice.call(name, session_id="session_0", content="c")
    assert refused["code"] == "TOOL_NOT_FOUND"
    assert refused["suggestion"].startswith("Did you mean add_message?")


async def test_a_name_that_is_like_no_other_is_refused_without_a_guess(as_agent: As) -> None:
    alice = await as_agent("alice")
    assert "Did you mean" not in (await alice.call("zzz"))["suggestion"]
    refused = await alice.call("get_session", session_id="s", zzz=1)
    assert refused["suggestion"].startswith("The arguments are: ")


async def test_listings_of_names_come_in_pages(as_agent: As) -> None:
    alice = await as_agent("alice")
    session_id = await new_session(alice)
    for name in ("bob", "carol", "dave"):
        other = await as_agent(name)
        await other.call("add_message", session_id=session_id, content="here")
        await other.call("acquire_lease", session_id=session_id, name=f"lease of {name}")
    for tool, field, expected in (("list_agents", "agents", 4), ("list_leases", "leases", 3)):
        seen: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = await alice.call(tool, session_id=session_id, limit=2, **cursor)
            assert page["count"] == len(page[field]) <= 2
            seen += [item.get("agent_id", item.get("name")) for item in page[field]]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert len(set(seen)) == expected


@pytest.mark.parametrize("tool", ["list_sessions", "list_agents", "list_leases", "list_memory"])
@pytest.mark.parametrize(
    "cursor", ["garbage", "W10", "WyJcdTAwMDAiXQ", "Wzk5OTk5OTk5OTk5OTk5OTk5OTksImEiXQ"]
)
async def test_a_cursor_that_is_not_ours_is_refused(as_agent: As, tool: str, cursor: str) -> None:
    alice = await as_agent("alice")
    refused = await alice.call(tool, cursor=cursor)
    assert (refused["code"], refused["details"]["field"]) == ("INVALID_ARGUMENT", "cursor")


async def test_long_messages_are_answered_in_pages_on_every_surface(as_agent: As) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    session_id = await new_session(alice)
    for _ in range(5):
        await alice.call("add_message", session_id=session_id, content="@bob " + "x" * 30_000)
    pages = {
        "get_messages": {"after_seq": 0},
        "wait_for_messages": {"after_seq": 0, "mentions_me": True},
        "get_session": {},
    }
    for tool, arguments in pages.items():
        page = await bob.call(tool, session_id=session_id, **arguments)
        assert len(page["messages"]) == 2, tool
    first = await bob.call("get_messages", session_id=session_id, after_seq=0)
    assert (first["has_more"], first["next_after_seq"]) == (True, 2)
    whole = await bob.call("get_messages", session_id=session_id, after_seq=0, limit=1000)
    assert (whole["count"], whole["has_more"]) == (5, False)


async def test_integers_beyond_64_bits_are_refused_by_name(as_agent: As) -> None:
    alice = await as_agent("alice")
    session_id = await new_session(alice)
    large = {"a": [2**63]}
    refused = await alice.call("set_memory", key="k", value=large)
    assert_refused(refused, "INVALID_ARGUMENT", "value")
    refused = await alice.call("add_message", session_id=session_id, content="x", metadata=large)
    assert_refused(refused, "INVALID_ARGUMENT", "metadata")
    refused = await alice.call("set_memory", key="k", value=1, expected_version=2**63)
    assert_refused(refused, "INVALID_ARGUMENT", "expected_version")


async def test_an_increment_never_makes_a_key_that_cannot_be_read(as_agent: As) -> None:
    alice = await as_agent("alice")
    await alice.call("set_memory", key="n", value=2**63 - 1)
    for step in (1, 2**63 - 1):
        refused = await alice.call("set_memory", key="n", mode="increment", value=step)
        assert_refused(refused, "CONFLICT", "value")
    assert (await alice.call("get_memory", key="n"))["value"] == 2**63 - 1
    half = await alice.call("set_memory", key="n", mode="increment", value=0.5)
    assert half["version"] == 2
    assert (await alice.call("delete_memory", key="n"))["deleted"] is True


async def test_merging_anything_but_an_object_is_refused(as_agent: As) -> None:
    alice = await as_agent("alice")
    await alice.call("set_memory", key="plan", value={"a": 1})
    for patch in ('{"b": 2}', [1], None, 5):
        refused = await alice.call("set_memory", key="plan", mode="merge", value=patch)
        assert_refused(refused, "INVALID_ARGUMENT", "value")
    assert (await alice.call("get_memory", key="plan"))["value"] == {"a": 1}
