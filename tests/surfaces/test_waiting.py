"""wait_for_messages: woken by what the caller may see, by nothing else, and never too late."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport

from shared_context_server.events.bus import Bus
from shared_context_server.server import Server
from shared_context_server.services import follow
from tests.settings import API_KEY, make_settings
from tests.surfaces.conftest import Answer, As, RestSurface, Surface, headers_of, serve
from tests.until import until

PATIENCE_S = 30


async def new_session(surface: Surface, **arguments: Any) -> str:
    created = await surface.call("create_session", purpose="test", **arguments)
    session_id: str = created["session_id"]
    return session_id


async def waiting(
    server: Server, count: int, *calls: Awaitable[Answer]
) -> list[asyncio.Task[Answer]]:
    """The calls as tasks, once so many subscribers wait at the server."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    await until(lambda: server.services.bus.subscriber_count == count)
    return tasks


def contents(answer: Answer) -> list[str]:
    return [message["content"] for message in answer["messages"]]


async def test_what_is_there_already_is_answered_at_once(as_agent: As) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    session_id = await new_session(alice)
    for number in range(3):
        await alice.call("add_message", session_id=session_id, content=f"m{number}")
    answer = await bob.call("wait_for_messages", session_id=session_id, after_seq=1)
    assert contents(answer) == ["m1", "m2"]
    assert (answer["next_after_seq"], answer["timed_out"]) == (3, False)
    one = await bob.call("wait_for_messages", session_id=session_id, limit=1)
    assert (contents(one), one["next_after_seq"]) == (["m0"], 1)


async def test_a_message_wakes_who_may_see_it_and_no_one_else(as_agent: As, server: Server) -> None:
    alice, bob, eve = await as_agent("alice"), await as_agent("bob"), await as_agent("eve")
    session_id = await new_session(alice)
    wait = {"session_id": session_id, "timeout_seconds": PATIENCE_S}
    for_bob, for_eve = await waiting(
        server, 2, bob.call("wait_for_messages", **wait), eve.call("wait_for_messages", **wait)
    )
    private = {"visibility": "private", "recipients": ["bob"]}
    await alice.call("add_message", session_id=session_id, content="psst", **private)
    assert contents(await for_bob) == ["psst"]
    assert not for_eve.done()
    await alice.call("add_message", session_id=session_id, content="all")
    woken = await for_eve
    assert (contents(woken), woken["next_after_seq"]) == (["all"], 2)


async def test_the_time_runs_out_without_news(as_agent: As) -> None:
    alice = await as_agent("alice")
    session_id = await new_session(alice)
    await alice.call("add_message", session_id=session_id, content="old")
    answer = await alice.call(
        "wait_for_messages", session_id=session_id, after_seq=1, timeout_seconds=0.05
    )
    assert answer.body["messages"] == []
    assert (answer["next_after_seq"], answer["timed_out"]) == (1, True)


async def test_without_after_seq_it_waits_behind_the_stored_cursor_and_does_not_move_it(
    as_agent: As,
) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    session_id = await new_session(alice)
    for number in range(2):
        await alice.call("add_message", session_id=session_id, content=f"m{number}")
    await bob.call("mark_read", session_id=session_id, seq=1)
    for _ in range(2):
        assert contents(await bob.call("wait_for_messages", session_id=session_id)) == ["m1"]


async def test_own_messages_wake_only_who_asks_for_them(as_agent: As) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    session_id = await new_session(alice)
    own = {"session_id": session_id, "timeout_seconds": 0}
    await alice.call("add_message", session_id=session_id, content="mine")
    nothing = await alice.call("wait_for_messages", **own)
    assert (contents(nothing), nothing["next_after_seq"]) == ([], 1)  # not read again
    for asked in ({"include_own": True}, {"sender": "alice"}):
        assert contents(await alice.call("wait_for_messages", **own, **asked)) == ["mine"]
    await bob.call("add_message", session_id=session_id, content="not @alice's")
    await alice.call("add_message", session_id=session_id, content="mine again")
    filtered = await alice.call("wait_for_messages", **own, sender="carol")
    assert (contents(filtered), filtered["next_after_seq"]) == ([], 0)
    assert contents(await alice.call("wait_for_messages", **own)) == ["not @alice's"]


async def test_one_call_waits_for_several_sessions(as_agent: As, server: Server) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    first, second, other = [await new_session(alice) for _ in range(3)]
    await alice.call("add_message", session_id=first, content="old")
    wait = {"session_ids": [first, second], "cursors": {first: 1}, "timeout_seconds": PATIENCE_S}
    (task,) = await waiting(server, 1, bob.call("wait_for_messages", **wait))
    await alice.call("add_message", session_id=other, content="elsewhere")
    await alice.call("add_message", session_id=second, content="here")
    woken = await task
    assert contents(woken) == ["here"]
    assert (woken["cursors"], woken["next_after_seq"]) == ({first: 1, second: 1}, None)
    await alice.call("add_message", session_id=first, content="a")
    await alice.call("add_message", session_id=second, content="b")
    again = wait | {"cursors": woken["cursors"], "limit": 1}
    answer = await bob.call("wait_for_messages", **again)
    assert contents(answer) == ["a"]
    again["cursors"] = answer["cursors"]
    answer = await bob.call("wait_for_messages", **again)
    assert contents(answer) == ["b"]
    assert answer["cursors"] == {first: 2, second: 2}


async def test_without_a_session_it_waits_for_all_the_caller_may_read(
    as_agent: As, server: Server
) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    known, secret = await new_session(alice), await new_session(alice, access="invited")
    await alice.call("add_message", session_id=known, content="unread")
    answer = await bob.call("wait_for_messages", timeout_seconds=PATIENCE_S)
    assert (contents(answer), answer["cursors"]) == (["unread"], {known: 1})
    await bob.call("mark_read", session_id=known, seq=1)
    (task,) = await waiting(
        server, 1, bob.call("wait_for_messages", mentions_me=True, timeout_seconds=PATIENCE_S)
    )
    await alice.call("add_message", session_id=secret, content="@bob must not see this")
    await alice.call("add_message", session_id=known, content="nothing")
    new = await new_session(alice)  # later than the call
    await alice.call("add_message", session_id=new, content="@bob")
    woken = await task
    assert (contents(woken), woken["cursors"]) == (["@bob"], {new: 1})


@pytest.mark.parametrize(
    "arguments,field",
    [
        ({"session_id": "s", "session_ids": ["s"]}, "session_ids"),
        ({"session_id": "s", "cursors": {"s": 1}}, "cursors"),
        ({"after_seq": 1}, "after_seq"),
        ({"session_ids": ["s"], "cursors": {"t": 1}}, "cursors"),
        ({"session_ids": ["s"], "cursors": {"s": -1}}, "cursors"),
        ({"session_ids": []}, "session_ids"),
        ({"timeout_seconds": 3601}, "timeout_seconds"),
    ],
)
async def test_sessions_and_cursors_that_do_not_fit_are_refused_by_name(
    as_agent: As, arguments: dict[str, Any], field: str
) -> None:
    answer = await (await as_agent("alice")).call("wait_for_messages", **arguments)
    assert (answer["code"], answer["details"]["field"]) == ("INVALID_ARGUMENT", field)


async def test_a_wait_for_many_full_sessions_holds_few_pages_in_memory(url: str) -> None:
    async with (
        RestSurface(url, headers_of("alice")) as alice,
        RestSurface(url, headers_of("bob")) as bob,
    ):
        ids = [await new_session(alice) for _ in range(12)]
        for session_id in ids * 5:
            await alice.call("add_message", session_id=session_id, content="x" * 99_000)
        tracemalloc.start()
        answer = await bob.call("wait_for_messages", limit=1000)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert [message["session_id"] for message in answer["messages"]] == ids[:5]
        assert peak_bytes < 4_500_000  # all of them are 5.9 MB


async def test_what_one_of_several_sessions_lacks_is_told_by_its_argument(as_agent: As) -> None:
    alice, eve = await as_agent("alice"), await as_agent("eve")
    secret, open_ = await new_session(alice, access="invited"), await new_session(alice)
    for wait, code, field, session_id in (
        ({"session_ids": [open_, secret]}, "SESSION_NOT_FOUND", "session_ids", secret),
        ({"session_ids": [secret]}, "SESSION_NOT_FOUND", "session_ids", secret),
        ({"session_ids": ["none"]}, "SESSION_NOT_FOUND", "session_ids", "none"),
        ({"session_id": secret}, "SESSION_NOT_FOUND", "session_id", secret),
        ({"session_ids": [open_], "cursors": {open_: 9}}, "CURSOR_LOST", "cursors", open_),
        ({"cursors": {open_: 9}}, "CURSOR_LOST", "cursors", open_),
        ({"session_id": open_, "after_seq": 9}, "CURSOR_LOST", "after_seq", None),
    ):
        refused = await eve.call("wait_for_messages", **wait, timeout_seconds=PATIENCE_S)
        details = refused["details"]
        assert (refused["code"], details["field"]) == (code, field)
        assert details.get("session_id") == session_id


@pytest.mark.parametrize(
    "wanted,passes",
    [
        ({"mentions_me": True}, "hey @bob, look"),
        ({"mentions_me": True}, "(@bob)"),
        ({"sender": "carol"}, "from carol"),
        ({"visibility": "agent_only"}, "typed"),
    ],
)
async def test_filters_decide_what_wakes(
    as_agent: As, server: Server, wanted: dict[str, Any], passes: str
) -> None:
    alice, bob, carol = await as_agent("alice"), await as_agent("bob"), await as_agent("carol")
    session_id = await new_session(alice)
    wait = {"session_id": session_id, "timeout_seconds": PATIENCE_S, **wanted}
    (task,) = await waiting(server, 1, bob.call("wait_for_messages", **wait))
    for content in ("nothing", "mail x@bob.org", "@bobby", "@bob-2"):
        await alice.call("add_message", session_id=session_id, content=content)
    sender = carol if wanted.get("sender") else alice
    extra = {"visibility": wanted["visibility"]} if "visibility" in wanted else {}
    await sender.call("add_message", session_id=session_id, content=passes, **extra)
    assert contents(await task) == [passes]


async def test_a_recipient_is_mentioned(as_agent: As) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    session_id = await new_session(alice)
    await alice.call("add_message", session_id=session_id, content="no")
    await alice.call("add_message", session_id=session_id, content="yes", recipients=["bob"])
    answer = await bob.call("wait_for_messages", session_id=session_id, mentions_me=True)
    assert contents(answer) == ["yes"]


async def test_a_deleted_session_ends_the_wait(as_agent: As, server: Server) -> None:
    alice, bob = await as_agent("alice"), await as_agent("bob")
    session_id = await new_session(alice)
    wait = {"session_id": session_id, "timeout_seconds": PATIENCE_S}
    (task,) = await waiting(server, 1, bob.call("wait_for_messages", **wait))
    await alice.call("delete_session", session_id=session_id)
    assert (await task)["code"] == "SESSION_NOT_FOUND"


async def test_a_token_revoked_meanwhile_sees_nothing(as_agent: As, server: Server) -> None:
    alice, nobody = await as_agent("alice"), await as_agent(None)
    session_id = await new_session(alice)
    token = (await nobody.call("authenticate_agent", agent_id="bob", api_key=API_KEY))["token"]
    wait = {"session_id": session_id, "timeout_seconds": PATIENCE_S, "auth_token": token}
    (task,) = await waiting(server, 1, nobody.call("wait_for_messages", **wait))
    await nobody.call("revoke_token", auth_token=token)
    await alice.call("add_message", session_id=session_id, content="not for bob any more")
    assert (await task)["code"] == "UNAUTHENTICATED"


async def test_a_stranger_of_an_invited_session_cannot_wait(as_agent: As) -> None:
    alice, eve = await as_agent("alice"), await as_agent("eve")
    session_id = await new_session(alice, access="invited")
    refused = await eve.call("wait_for_messages", session_id=session_id)
    assert refused["code"] == "SESSION_NOT_FOUND"


async def test_a_stopping_server_tells_who_waits_to_try_again(as_agent: As, server: Server) -> None:
    alice = await as_agent("alice")
    session_id = await new_session(alice)
    wait = {"session_id": session_id, "timeout_seconds": PATIENCE_S}
    (task,) = await waiting(server, 1, alice.call("wait_for_messages", **wait))
    server.stop()
    answer = await task
    assert (answer["code"], answer["retryable"]) == ("UNAVAILABLE", True)


async def test_no_message_is_missed_between_looking_and_waiting(url: str) -> None:
    async with (
        RestSurface(url, headers_of("alice")) as alice,
        RestSurface(url, headers_of("bob")) as bob,
    ):
        session_id = await new_session(alice)

        async def write() -> None:
            for number in range(100):
                await alice.call("add_message", session_id=session_id, content=f"m{number}")

        writer = asyncio.create_task(write())
        seen: list[str] = []
        after_seq = 0
        async with asyncio.timeout(60):
            while len(seen) < 100:
                answer = await bob.call(
                    "wait_for_messages",
                    session_id=session_id,
                    after_seq=after_seq,
                    timeout_seconds=PATIENCE_S,
                )
                assert not answer["timed_out"]
                seen += contents(answer)
                after_seq = answer["next_after_seq"]
        await writer
        assert seen == [f"m{number}" for number in range(100)]


async def test_hundreds_waiting_for_one_session_are_all_woken(server: Server, url: str) -> None:
    limits = httpx.Limits(max_connections=400)
    async with (
        httpx.AsyncClient(
            base_url=url, headers=headers_of("bob"), limits=limits, timeout=60
        ) as http,
        RestSurface(url, headers_of("alice")) as alice,
    ):
        session_id = await new_session(alice)
        body = {"session_id": session_id, "timeout_seconds": PATIENCE_S}
        tasks = [
            asyncio.create_task(http.post("/mcp/tool/wait_for_messages", json=body))
            for _ in range(200)
        ]
        await until(lambda: server.services.bus.subscriber_count == 200)
        await alice.call("add_message", session_id=session_id, content="now")
        answers = [(await task).json() for task in tasks]
        assert all(answer["messages"][0]["content"] == "now" for answer in answers)
        assert server.services.bus.subscriber_count == 0


@pytest.mark.parametrize("kind", ["rest", "batch", "2026-07-28", "legacy"])
async def test_clients_that_vanish_leave_nothing_behind(
    server: Server, url: str, kind: str
) -> None:
    bus: Bus = server.services.bus
    async with RestSurface(url, headers_of("alice")) as alice:
        session_id = await new_session(alice)
        arguments = {"session_id": session_id, "timeout_seconds": 120}
        tasks_after: list[int] = []
        for _ in range(2):  # what the first round leaves is what the server keeps ready
            waits = [asyncio.create_task(vanish(url, kind, arguments)) for _ in range(20)]
            await until(lambda: bus.subscriber_count == 20)
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            await until(lambda: bus.subscriber_count == 0)
            await until(lambda: not tasks_after or len(asyncio.all_tasks()) <= tasks_after[0])
            tasks_after.append(len(asyncio.all_tasks()))
        assert not (await alice.call("list_sessions")).is_error


async def vanish(url: str, kind: str, arguments: dict[str, Any]) -> None:
    """Wait for what never comes, until cancelled."""
    headers = headers_of("bob")
    if kind in ("rest", "batch"):
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
            if kind == "rest":
                await http.post("/mcp/tool/wait_for_messages", json=arguments)
            calls = [{"tool": "wait_for_messages", "arguments": arguments}]
            await http.post("/mcp/batch", json={"calls": calls})
    else:
        transport = StreamableHttpTransport(f"{url}/mcp", headers=headers)
        async with Client(transport, mode=kind) as client:  # type: ignore[arg-type]
            await client.call_tool("wait_for_messages", arguments)


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_a_client_that_asked_for_progress_hears_that_the_call_is_alive(
    url: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    interval_s = 1.0
    monkeypatch.setattr(follow, "PROGRESS_INTERVAL_S", interval_s)
    heard: list[tuple[float, float | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total))

    transport = StreamableHttpTransport(f"{url}/mcp", headers=headers_of("bob"))
    async with Client(transport, mode=mode) as client:  # type: ignore[arg-type]
        made = await client.call_tool("create_session", {"purpose": "x"})
        arguments = {
            "session_id": made.structured_content["session_id"],  # type: ignore[index]
            "timeout_seconds": interval_s + 0.5,
        }
        answer = await client.call_tool("wait_for_messages", arguments, progress_handler=hear)
    assert answer.structured_content["timed_out"] is True  # type: ignore[index]
    assert len(heard) == 1
    assert heard[0][0] >= interval_s
    assert heard[0][1] == interval_s + 0.5


@pytest.mark.parametrize("level, is_sent", [("info", True), ("error", False), (None, False)])
async def test_a_request_that_asks_for_log_messages_gets_them_while_it_waits(
    url: str, level: str | None, is_sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "PROGRESS_INTERVAL_S", 0.05)
    key = "io.modelcontextprotocol/"
    meta: dict[str, Any] = {
        f"{key}protocolVersion": "2026-07-28",
        f"{key}clientInfo": {"name": "raw", "version": "1"},
        f"{key}clientCapabilities": {},
    }
    bob = RestSurface(url, headers_of("bob"))
    arguments = {"session_id": await new_session(bob), "timeout_seconds": 0.2}
    params = {
        "name": "wait_for_messages",
        "arguments": arguments,
        "_meta": meta if level is None else meta | {f"{key}logLevel": level},
    }
    headers = headers_of("bob") | {
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "wait_for_messages",
        "Accept": "application/json, text/event-stream",
    }
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    async with bob, httpx.AsyncClient() as http:
        answer = await http.post(f"{url}/mcp", json=call, headers=headers)
    assert "timed_out" in answer.text
    assert ("notifications/message" in answer.text) is is_sent


async def test_a_quiet_wait_ends_when_its_token_is_revoked_at_another_server(
    tmp_path: Path,
) -> None:
    settings = make_settings(tmp_path)
    async with (
        serve(settings) as (server, url),
        serve(settings) as (_, other_url),
        httpx.AsyncClient(timeout=90) as http,
    ):
        issued = await http.post(
            f"{url}/mcp/tool/authenticate_agent", json={"agent_id": "bob", "api_key": API_KEY}
        )
        bob = {"Authorization": f"Bearer {issued.json()['token']}"}
        made = await http.post(
            f"{url}/mcp/tool/create_session", json={"purpose": "quiet"}, headers=bob
        )
        arguments = {"session_id": made.json()["session_id"], "timeout_seconds": 60}
        waiting = asyncio.create_task(
            http.post(f"{url}/mcp/tool/wait_for_messages", json=arguments, headers=bob)
        )
        await until(lambda: server.services.bus.subscriber_count == 1)
        await http.post(f"{other_url}/mcp/tool/revoke_token", json={}, headers=bob)
        answer = await asyncio.wait_for(waiting, 20)  # it would look by itself after 30 s
        assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED")
