"""Threads of one client: told apart by the names in _meta or the header, and repeated tool uses."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport

from shared_context_server.auth.connection import Connection, KeyGrant
from shared_context_server.auth.instances import (
    TOOL_USE,
    TRACE_PARENT,
    clean_instance,
    name_instance,
    read_meta,
)
from shared_context_server.errors import Unauthenticated
from shared_context_server.models import Caller, Permission
from shared_context_server.observability.traces import TraceParent
from tests.settings import ADMIN_API_KEY, make_settings
from tests.surfaces.conftest import Answer, RestSurface, headers_of, serve

TOOL_USE_ID = "toolu_01A09q90qw90lq917835lq9"


class Threads:
    """One connection of alice on which several threads call."""

    def __init__(self, client: Client[Any]) -> None:
        self._client = client

    async def call(self, tool: str, meta: dict[str, Any], **arguments: Any) -> dict[str, Any]:
        result = await self._client.call_tool(tool, arguments, meta=meta, raise_on_error=False)
        assert result.structured_content is not None
        return result.structured_content


def connect(url: str, mode: str, **headers: str) -> Client[Any]:
    transport = StreamableHttpTransport(f"{url}/mcp", headers=headers_of("alice") | headers)
    return Client(transport, mode=mode)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
@pytest.mark.parametrize(
    "member", ["threadId", "ai.opencode/sessionID", "antigravity.google/conversation_id"]
)
async def test_threads_of_one_connection_are_told_apart(url: str, member: str, mode: str) -> None:
    async with connect(url, mode, **{"X-Agent-Instance": "window"}) as client:
        threads = Threads(client)
        one, two = {member: " one\t"}, {member: "two"}
        session_id = (await threads.call("create_session", one, purpose="x"))["session_id"]
        place = {"session_id": session_id}
        for meta in (one, two, {}):
            await threads.call("add_message", meta, **place, content="hello")
        listed = await threads.call("get_messages", two, **place)
        assert [m["sender"] for m in listed["messages"]] == ["alice"] * 3
        assert [m["sender_instance"] for m in listed["messages"]] == ["one", "two", "window"]
        # A lease waits, so that the SDK reads this call, and not the direct lane.
        lease = {"name": "deploy", **place}
        first = await threads.call("acquire_lease", one, **lease)
        assert (first["acquired"], first["instance"]) == (True, "one")
        refused = await threads.call("acquire_lease", two, **lease)
        assert (refused["acquired"], refused["holder"], refused["instance"]) == (
            False,
            "alice",
            "one",
        )
        assert (await threads.call("acquire_lease", one, **lease))["fencing_token"] == 1
        fence = {"lease": "deploy", "fencing_token": 2, "content": "x"}
        lost = await threads.call("add_message", two, **place, **fence)
        assert lost["error"].endswith("'alice' holds it in 'one'.")
        held = await threads.call("list_leases", two, **place)
        assert [(item["holder"], item["instance"]) for item in held["leases"]] == [("alice", "one")]
    async with RestSurface(url, headers_of("root", api_key=ADMIN_API_KEY)) as admin:
        log = await admin.call("get_audit_log", session_id=session_id, event_type="session_created")
        assert log["entries"][0]["details"]["instance"] == "one"


async def test_over_http_a_header_names_the_thread_and_an_argument_keeps_it(url: str) -> None:
    named = headers_of("alice") | {"X-Agent-Instance": "left window"}
    async with RestSurface(url, named) as alice, RestSurface(url, headers_of("alice")) as plain:
        session_id = (await alice.call("create_session", purpose="x"))["session_id"]
        handle = (await alice.call("authenticate_agent", agent_id="helper"))["agent_handle"]
        place = {"session_id": session_id, "content": "hello"}
        await alice.call("add_message", **place)
        await alice.call("add_message", **place, auth_token=handle)
        await plain.call("add_message", **place)
        messages = (await plain.call("get_messages", session_id=session_id))["messages"]
        assert [(m["sender"], m.get("sender_instance")) for m in messages] == [
            ("alice", "left window"),
            ("helper", "left window"),
            ("alice", None),
        ]
        found = await plain.call("search_context", session_id=session_id, query="hello")
        shown = [hit["message"].get("sender_instance") for hit in found["results"]]
        assert sorted(shown, key=str) == [None, "left window", "left window"]


async def test_a_name_of_a_thread_opens_nothing(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, headers={"X-Agent-Instance": "one"}) as nobody:
        assert (await nobody.post("/mcp/tool/list_sessions", json={})).status_code == 401


@pytest.mark.parametrize(
    "value, name",
    [
        ("  one\n", "one"),
        ("x" * 200, "x" * 128),
        ("a\x00b\u202ec", "a b c"),
        ("häl\u200blo", "häl lo"),
        ("\u2028", ""),
        ("\ud800", ""),
        ("", ""),
        (7, ""),
        (None, ""),
        ({"id": "one"}, ""),
    ],
)
def test_a_name_is_printable_trimmed_and_bounded(value: object, name: str) -> None:
    assert clean_instance(value) == name


def test_all_else_of_the_connection_stays() -> None:
    caller = Caller("alice", "claude", frozenset({Permission.READ}), "key", "credential", "origin")
    grant = KeyGrant("key", None, frozenset(), "api-key")
    parent = TraceParent("sent", "", is_of_message=False)
    full = Connection(caller, grant, Unauthenticated("x"), True, "127.0.0.1", "x" * 16, parent)
    unset = Connection()
    assert all(getattr(full, one.name) != getattr(unset, one.name) for one in fields(Connection))
    named = read_meta(full, {"threadId": "one", TOOL_USE: TOOL_USE_ID})
    expected = replace(full, caller=replace(caller, instance="one"), tool_use=TOOL_USE_ID)
    assert named == expected
    assert named.trace_parent is name_instance(full, "one").trace_parent is parent
    assert read_meta(full, {TRACE_PARENT: ""}).trace_parent is parent
    assert read_meta(full, {"threadId": ""}) == replace(full, tool_use="")
    later = read_meta(full, {"threadId": 7, "ai.opencode/sessionID": "two"})
    assert later.caller.instance == "two"
    assert name_instance(full, 7) is full


async def add(threads: Threads, session_id: str, meta: dict[str, Any], **more: Any) -> Any:
    arguments = {"session_id": session_id, "content": "once", **more}
    return (await threads.call("add_message", meta, **arguments))["seq"]


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_a_tool_use_that_is_repeated_writes_once(url: str, mode: str) -> None:
    async with connect(url, mode) as client:
        threads = Threads(client)
        session_id = (await threads.call("create_session", {}, purpose="x"))["session_id"]
        use = {TOOL_USE: TOOL_USE_ID}
        assert [await add(threads, session_id, use) for _ in range(3)] == [1, 1, 1]
        # Another call, thread, key of the caller's own, or id that is too short for one.
        assert await add(threads, session_id, use, content="twice") == 2
        assert await add(threads, session_id, use | {"threadId": "t"}) == 3
        assert await add(threads, session_id, use, idempotency_key="mine") == 4
        assert await add(threads, session_id, use | {TOOL_USE: "toolu_0"}) == 5
        assert await add(threads, session_id, use | {TOOL_USE: "toolu_0"}) == 6
        memory = {"key": "count", "mode": "increment"}
        versions = [(await threads.call("set_memory", use, **memory))["version"] for _ in "ab"]
        assert versions == [1, 1]


async def test_a_setting_ignores_the_ids_of_tool_uses(tmp_path: Path) -> None:
    async with (
        serve(make_settings(tmp_path / "data", tool_use_ids=False)) as (_, url),
        connect(url, "2026-07-28") as client,
    ):
        threads = Threads(client)
        session_id = (await threads.call("create_session", {}, purpose="x"))["session_id"]
        use = {TOOL_USE: TOOL_USE_ID}
        assert [await add(threads, session_id, use) for _ in "ab"] == [1, 2]


async def test_answers_have_no_instance_where_none_is_named(url: str) -> None:
    async with RestSurface(url, headers_of("alice")) as alice:
        lease: Answer = await alice.call("acquire_lease", name="x")
        assert "instance" not in lease.body
