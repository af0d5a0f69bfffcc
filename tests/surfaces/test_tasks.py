"""Tasks as callers see them, on every surface."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Any

import httpx
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport

from shared_context_server.server import Server
from tests.surfaces.conftest import Answer, As, headers_of
from tests.until import until

PATIENCE_S = 20


async def new_session(surface: Any, **arguments: Any) -> str:
    created = await surface.call("create_session", purpose="tasks", **arguments)
    return str(created["session_id"])


def assert_refused(answer: Answer, code: str, field: str | None = None) -> None:
    assert answer.is_error, answer.body
    assert (answer["code"], answer["details"].get("field")) == (code, field)


async def test_tasks_are_added_claimed_finished_and_listed(as_agent: As) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    place = {"session_id": await new_session(alice)}
    first = (await alice.call("add_task", **place, title="Test it", metadata={"a": 1}))["task"]
    assert first == {
        "id": 1,
        "session_id": place["session_id"],
        "title": "Test it",
        "body": "",
        "state": "ready",
        "priority": 0,
        "assignee": None,
        "depends_on": [],
        "blocked_by": [],
        "metadata": {"a": 1},
        "created_by": "alice",
        "created_at": first["created_at"],
        "claimed_by": None,
        "instance": "",
        "fencing_token": None,
        "expires_at": None,
        "result": None,
        "finished_by": None,
        "finished_at": None,
    }
    blocked = await alice.call("add_task", **place, title="Ship it", depends_on=[1], body="All")
    assert blocked["task"]["blocked_by"] == [{"task_id": 1, "state": "ready"}]
    claimed = await bob.call("claim_task", **place, ttl_seconds=100)
    task = claimed["task"]
    assert (task["id"], task["state"], task["claimed_by"]) == (1, "claimed", "bob")
    assert claimed["next_expires_at"] == task["expires_at"]
    assert claimed["hint"] is None
    nothing = await alice.call("claim_task", **place)
    assert not nothing.is_error
    assert nothing["task"] is None
    assert nothing["hint"].startswith("No task is ready for you: 1 are blocked and 1 claimed")
    named = await alice.call("claim_task", **place, task_id=2)
    assert named["hint"] == "Task 2 waits for 1 (claimed)."
    named = await alice.call("claim_task", **place, task_id=1)
    assert named["hint"].startswith("Task 1 is claimed by 'bob' until ")
    renewed = await bob.call("claim_task", **place, task_id=1, ttl_seconds=200)
    assert renewed["renewed"] is True
    assert renewed["task"]["fencing_token"] == task["fencing_token"]
    assert datetime.fromisoformat(renewed["task"]["expires_at"]) > datetime.fromisoformat(
        task["expires_at"]
    )
    end = {**place, "task_id": 1, "fencing_token": task["fencing_token"]}
    assert_refused(await alice.call("finish_task", **end), "LEASE_LOST", "fencing_token")
    done = await bob.call("finish_task", **end, result={"ok": None}, idempotency_key="k")
    assert (done["task"]["state"], done["task"]["result"]) == ("done", {"ok": None})
    again = await bob.call("finish_task", **end, result={"ok": None}, idempotency_key="k")
    assert again.body == done.body | {"duplicate": True}
    assert_refused(await bob.call("finish_task", **end), "LEASE_LOST", "fencing_token")
    listed = await alice.call("list_tasks", **place, state="ready")
    assert [one["id"] for one in listed["tasks"]] == [2]
    assert listed["counts"] == {"ready": 1, "blocked": 0, "claimed": 0, "done": 1, "failed": 0}
    page = await alice.call("list_tasks", **place, limit=1)
    rest = await alice.call("list_tasks", **place, cursor=page["next_cursor"])
    assert [one["id"] for one in page["tasks"] + rest["tasks"]] == [1, 2]
    log = await alice.call("get_messages", **place)
    assert [(one["sender"], one["metadata"]["type"]) for one in log["messages"]] == [
        ("alice", "task"),
        ("alice", "task"),
        ("bob", "task"),
        ("bob", "task"),
    ]
    found = await alice.call("search_context", **place, query="Ship")
    assert found["results"][0]["message"]["metadata"]["task_id"] == 2


async def test_bad_arguments_and_callers_are_refused_by_name(as_agent: As) -> None:
    alice, eve = await as_agent("alice"), await as_agent("eve")
    place = {"session_id": await new_session(alice, access="invited")}
    title = {**place, "title": "t"}
    cases: list[tuple[str, dict[str, Any], str, str]] = [
        ("add_task", place, "INVALID_ARGUMENT", "title"),
        ("add_task", {**place, "title": "t" * 501}, "INVALID_ARGUMENT", "title"),
        ("add_task", {**title, "body": "b" * 100_001}, "CONTENT_TOO_LARGE", "body"),
        ("add_task", {**title, "depends_on": [*range(1, 102)]}, "INVALID_ARGUMENT", "depends_on"),
        ("add_task", {**title, "depends_on": [1]}, "TASK_NOT_FOUND", "depends_on"),
        ("add_task", {**title, "assignee": " x"}, "INVALID_ARGUMENT", "assignee"),
        ("add_task", {**title, "priority": 1001}, "INVALID_ARGUMENT", "priority"),
        ("claim_task", {**place, "task_id": 1}, "TASK_NOT_FOUND", "task_id"),
        ("claim_task", {**place, "ttl_seconds": 0}, "INVALID_ARGUMENT", "ttl_seconds"),
        ("claim_task", {**place, "wait_seconds": 1e9}, "INVALID_ARGUMENT", "wait_seconds"),
        (
            "finish_task",
            {**place, "task_id": 1, "fencing_token": 1, "outcome": "won"},
            "INVALID_ARGUMENT",
            "outcome",
        ),
        (
            "finish_task",
            {**place, "task_id": 1, "fencing_token": 1, "result": "x" * 300_000},
            "CONTENT_TOO_LARGE",
            "result",
        ),
        ("list_tasks", {**place, "state": "lost"}, "INVALID_ARGUMENT", "state"),
        ("list_tasks", {**place, "cursor": "x"}, "INVALID_ARGUMENT", "cursor"),
        ("acquire_lease", {**place, "name": "task:1"}, "INVALID_ARGUMENT", "name"),
    ]
    for tool, arguments, code, field in cases:
        assert_refused(await alice.call(tool, **arguments), code, field)
    for tool, arguments in (("add_task", title), ("claim_task", place), ("list_tasks", place)):
        assert_refused(await eve.call(tool, **arguments), "SESSION_NOT_FOUND", "session_id")
    await alice.call("add_task", **title, assignee="bob")
    refused = await alice.call("claim_task", **place, task_id=1)
    assert_refused(refused, "PERMISSION_DENIED", "task_id")
    await alice.call("close_session", **place)
    for tool, arguments in (("add_task", title), ("claim_task", place)):
        assert_refused(await alice.call(tool, **arguments), "SESSION_CLOSED", "session_id")
    assert (await alice.call("list_tasks", **place))["count"] == 1


async def test_who_may_not_read_may_not_work(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, headers=headers_of("alice")) as http:
        created = (await http.post("/mcp/tool/create_session", json={"purpose": "p"})).json()
        for permission in ("read", "write"):
            asked = {"agent_id": "alice", "requested_permissions": [permission]}
            token = (await http.post("/mcp/tool/authenticate_agent", json=asked)).json()["token"]
            place = {"session_id": created["session_id"], "auth_token": token}
            for tool, more in (("add_task", {"title": "t"}), ("claim_task", {})):
                answer = await http.post(f"/mcp/tool/{tool}", json=place | more)
                assert (answer.status_code, answer.json()["code"]) == (403, "PERMISSION_DENIED")


async def test_a_waiting_claim_gets_what_becomes_ready(as_agent: As, server: Server) -> None:
    """Added, opened by another task, and left behind by a worker whose claim runs out."""
    alice, bob = await as_agent("alice"), await as_agent("bob")
    place = {"session_id": await new_session(alice)}

    async def wait() -> asyncio.Task[Answer]:
        call = bob.call("claim_task", **place, wait_seconds=PATIENCE_S, ttl_seconds=100)
        waiting = asyncio.create_task(call)
        await until(lambda: server.services.bus.has_subscribers(place["session_id"]))
        return waiting

    async with asyncio.timeout(PATIENCE_S):
        waiting = await wait()
        await alice.call("add_message", **place, content="nothing for a worker")
        await alice.call("add_task", **place, title="Added")
        first = (await waiting)["task"]
        assert first["id"] == 1
        await alice.call("add_task", **place, title="Opened", depends_on=[1])
        waiting = await wait()
        end = {**place, "task_id": 1, "fencing_token": first["fencing_token"]}
        await bob.call("finish_task", **end)
        assert (await waiting)["task"]["id"] == 2
        await alice.call("add_task", **place, title="Left behind")
        left = await alice.call("claim_task", **place, ttl_seconds=1)
        taken_over = (await (await wait()))["task"]
        assert (taken_over["id"], left["task"]["id"]) == (3, 3)
        assert taken_over["fencing_token"] == left["task"]["fencing_token"] + 1
        waiting = await wait()
        await alice.call("close_session", **place)
        assert_refused(await waiting, "SESSION_CLOSED", "session_id")


async def test_a_wait_ends_with_nothing_when_the_time_is_up(as_agent: As) -> None:
    alice = await as_agent("alice")
    place = {"session_id": await new_session(alice)}
    answer = await alice.call("claim_task", **place, wait_seconds=0.05)
    assert answer["task"] is None
    assert answer["hint"] == "No task is left: 0 are done, 0 failed."


async def test_the_resource_shows_what_is_unfinished(url: str) -> None:
    headers = headers_of("alice")
    async with httpx.AsyncClient(base_url=url, headers=headers) as http:

        async def call(tool: str, **arguments: Any) -> Any:
            return (await http.post(f"/mcp/tool/{tool}", json=arguments)).json()

        session_id = (await call("create_session", purpose="p"))["session_id"]
        for title, depends_on in (("done", []), ("claimed", []), ("blocked", [2]), ("ready", [])):
            await call("add_task", session_id=session_id, title=title, depends_on=depends_on)
        await call("claim_task", session_id=session_id)
        await call("finish_task", session_id=session_id, task_id=1, fencing_token=1)
        await call("claim_task", session_id=session_id)
        batch = [{"tool": "list_tasks", "arguments": {"session_id": session_id}}]
        answers = (await http.post("/mcp/batch", json={"calls": batch})).json()["results"]
        assert (answers[0]["status"], answers[0]["result"]["count"]) == (200, 4)
    async with Client(StreamableHttpTransport(f"{url}/mcp", headers=headers)) as client:
        [shown] = await client.read_resource(f"session://{session_id}/tasks")
    body = json.loads(shown.text)  # type: ignore[union-attr]
    assert [task["title"] for task in body["tasks"]] == ["claimed", "ready", "blocked"]
    assert body["counts"]["done"] == 1
