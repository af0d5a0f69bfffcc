"""Every tool through its typed method, at a real server."""

from __future__ import annotations

import asyncio
import re
import signal
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from shared_context_client import (
    Conflict,
    ContentTooLarge,
    InvalidArgument,
    LeaseHeld,
    Limits,
    MemoryNotFound,
    PermissionDenied,
    SessionClosed,
    SessionNotFound,
    SharedContextClient,
    SharedContextError,
    Unauthenticated,
    UnexpectedAnswer,
)
from shared_context_server.tools.catalog import TOOLS
from tests.client.conftest import (
    ADMIN_API_KEY,
    API_KEY,
    PATIENCE_S,
    Relay,
    RestartableServer,
    answer_bytes,
    create_session,
    make_client,
)

CALLS_OF_A_TOOL = re.compile(
    r'^mcp_requests_total\{status="200",tool="(\w+)"\} [1-9]', re.MULTILINE
)


@pytest.fixture
def clock_server(tmp_path: Path) -> Iterator[RestartableServer]:
    prefix = f"client{uuid.uuid4().hex[:8]}_"
    server = RestartableServer(
        tmp_path,
        "--with-clock",
        CLOCK_PREFIX=prefix,
        CLOCK_SOURCES="simulated",
        METRICS_PUBLIC="true",
    )
    try:
        server.start()
        yield server
    finally:
        server.stop(signal.SIGTERM)


async def use_sessions(client: SharedContextClient) -> None:
    created = await client.create_session(
        "Plan", metadata={"n": 1}, access="invited", participants=["bob"]
    )
    assert created.created_by == "alice"
    assert created.created_at.tzinfo is not None
    page = await client.list_sessions(limit=5, created_by="alice")
    assert [item.session_id for item in page.sessions] == [created.session_id]
    assert page.sessions[0].access == "invited"
    details = await client.get_session(created.session_id)
    assert details.session.metadata == {"n": 1}
    said = await client.set_status("planning", state="working")
    assert (said.status, said.state) == ("planning", "working")
    (agent,) = (await client.list_agents(session_id=created.session_id)).agents
    assert (agent.agent_id, agent.status, agent.state) == ("alice", "planning", "working")
    closed = await client.close_session(created.session_id)
    assert closed.status == "closed"
    assert (await client.delete_session(created.session_id)).deleted


async def use_messages(client: SharedContextClient) -> None:
    session_id = await create_session(client)
    first = await client.add_message(
        session_id, "Is it green?", recipients=["bob"], visibility="private", requires_ack=True
    )
    assert first.unknown_recipients == ["bob"]
    told = await client.acknowledge_message(session_id, first.message_id)
    assert await client.session(session_id).acknowledge(first.message_id) == told
    assert (told.acknowledged, told.acknowledged_by, told.awaiting) == (False, [], ["bob"])
    second = await client.add_message(
        session_id, "It is.", parent_message_id=first.message_id, metadata={"type": "decision"}
    )
    assert (first.seq, second.seq, second.duplicate) == (1, 2, False)
    since = datetime.now(UTC) - timedelta(hours=1)
    page = await client.get_messages(session_id, after_seq=0, start_time=since)
    assert [message.content for message in page.messages] == ["Is it green?", "It is."]
    assert page.messages[0].recipients == ["bob"]
    assert [message.requires_ack for message in page.messages] == [True, False]
    waited = await client.wait_for_messages(
        session_id, after_seq=1, timeout_seconds=5, include_own=True
    )
    assert [message.seq for message in waited.messages] == [2]
    assert (await client.mark_read(session_id, 1)).unread == 0
    assert "It is." in (await client.get_digest(session_id, after_seq=0)).digest
    found = await client.search_context(session_id, "green")
    assert found.results[0].message.id == first.message_id
    assert found.results[0].highlights == [[6, 11]]
    anywhere = await client.search_context(None, "green", within="all", sort="newest")
    assert [result.message.id for result in anywhere.results] == [first.message_id]


async def use_memory(client: SharedContextClient) -> None:
    await client.set_memory("plan", {"step": 1}, metadata={"by": "alice"}, expires_in=60)
    assert (await client.set_memory("plan", {"step": 2}, expected_version=1)).version == 2
    assert (await client.get_memory("plan")).value == {"step": 2}
    await client.set_memory("nothing", None)
    assert (await client.get_memory("nothing")).value is None
    await client.set_memory("count", mode="increment")
    assert (await client.get_memory("count")).value == 1
    listed = await client.list_memory(prefix="p")
    assert [entry.key for entry in listed.entries] == ["plan"]
    assert (await client.delete_memory("plan")).deleted


async def use_leases(client: SharedContextClient) -> None:
    lease = await client.acquire_lease("deploy", ttl_seconds=30)
    assert lease.acquired
    assert lease.fencing_token is not None
    assert (await client.list_leases()).leases[0].holder == "alice"
    assert (await client.release_lease("deploy", lease.fencing_token)).released


async def hold_paths(client: SharedContextClient, other: SharedContextClient) -> None:
    session = client.session(await create_session(client))
    async with session.lease("parser", paths=["src/**"]) as mine:
        assert mine.is_held
        with pytest.raises(LeaseHeld) as held:
            async with other.session(session.id).lease("fix", paths=["*/*.py"]):
                pass
    assert (held.value.details["name"], held.value.details["paths"]) == ("parser", ["src/**"])


async def use_tasks(client: SharedContextClient) -> None:
    session = client.session(await create_session(client))
    first = (await session.add_task("Test it", priority=1)).task
    second = (await session.add_task("Ship it", depends_on=[first.id], body="All of it")).task
    assert [(one.task_id, one.state) for one in second.blocked_by] == [(first.id, "ready")]
    claimed = await session.claim_task(ttl_seconds=60)
    assert claimed.task is not None
    assert claimed.task.fencing_token is not None
    assert claimed.task.expires_at is not None
    nothing = await session.claim_task(ttl_seconds=60)
    assert nothing.task is None
    assert nothing.hint is not None
    done = await session.finish_task(first.id, claimed.task.fencing_token, result={"ok": True})
    assert (done.task.state, done.task.result) == ("done", {"ok": True})
    listed = await client.list_tasks(session.id, state="ready")
    assert ([task.id for task in listed.tasks], listed.counts.done) == ([second.id], 1)
    async with session.work(ttl_seconds=60) as task:
        assert task is not None
        assert task.item.id == second.id
        await task.finish(result="shipped")
    async with session.work() as task:
        assert task is None


async def use_the_clock(client: SharedContextClient) -> None:
    assert (await client.get_time()).source == "shared_memory"
    assert (await client.get_temperature()).simulated
    assert (await client.get_humidity()).unit == "%"
    assert (await client.get_all_sensors()).sensors["temperature"].valid


async def use_identity(client: SharedContextClient) -> None:
    issued = await client.authenticate_agent("alice", requested_permissions=["read"])
    assert issued.permissions == ["read"]
    renewed = await client.refresh_token(auth_token=issued.token)
    assert (await client.revoke_token(auth_token=renewed.token)).revoked


async def test_every_tool_answers_its_typed_method(clock_server: RestartableServer) -> None:
    async with make_client(clock_server.url) as client:
        await use_sessions(client)
        await use_messages(client)
        await use_memory(client)
        await use_leases(client)
        async with make_client(clock_server.url, "bob") as bob:
            await hold_paths(client, bob)
        await use_tasks(client)
        await use_the_clock(client)
        await use_identity(client)
    async with make_client(clock_server.url, "root", api_key=ADMIN_API_KEY) as admin:
        assert (await admin.get_audit_log(limit=5)).entries
    async with httpx.AsyncClient() as http:
        metrics = await http.get(f"{clock_server.url}/metrics")
    called = set(CALLS_OF_A_TOOL.findall(metrics.text))
    assert called == {tool.name for tool in TOOLS}


async def test_failures_are_typed(client: SharedContextClient) -> None:
    session_id = await create_session(client)
    with pytest.raises(SessionNotFound) as missing:
        await client.get_session("session_0000000000000000")
    assert missing.value.status == 404
    assert missing.value.details["session_id"] == "session_0000000000000000"
    assert missing.value.suggestion
    assert not missing.value.retryable
    with pytest.raises(InvalidArgument) as wrong:
        await client.get_messages(session_id, limit=0)
    assert wrong.value.details["field"] == "limit"
    with pytest.raises(MemoryNotFound):
        await client.get_memory("no such key")
    with pytest.raises(ContentTooLarge):
        await client.add_message(session_id, "x" * 100_001)
    with pytest.raises(PermissionDenied):
        await client.get_audit_log()
    await client.set_memory("once", 1, mode="create", session_id=session_id)
    with pytest.raises(Conflict) as conflict:
        await client.set_memory("once", 2, mode="create", session_id=session_id)
    assert conflict.value.code == "CONFLICT"
    await client.close_session(session_id)
    with pytest.raises(SessionClosed):
        await client.add_message(session_id, "too late")


async def test_what_json_cannot_say_is_refused_before_it_is_sent(
    client: SharedContextClient,
) -> None:
    with pytest.raises(InvalidArgument):
        await client.set_memory("key", object())


async def test_a_program_is_told_of_unread_mentions_once_and_may_name_its_thread(
    server_url: str,
) -> None:
    async with (
        make_client(server_url) as alice,
        make_client(server_url, "reader", instance="one") as reader,
    ):
        await reader.get_time()
        session = alice.session(await create_session(alice))
        await session.add("for you", recipients=["reader"], visibility="private")
        async with asyncio.timeout(PATIENCE_S):
            while (told := reader.take_unread()) is None:
                await reader.get_time()
        one = {"session_id": session.id, "count": 1, "first_seq": 1, "newest_seq": 1}
        assert told == {"count": 1, "sessions": [one]}
        assert reader.take_unread() is None
        await reader.session(session.id).add("thanks")
        messages = (await session.messages()).messages
        assert [message.sender_instance for message in messages] == ["", "one"]


async def test_a_wrong_key_is_refused_by_name(server_url: str) -> None:
    async with make_client(server_url, api_key="not-a-key-of-this-server") as client:
        with pytest.raises(Unauthenticated) as refused:
            await client.list_sessions()
        with pytest.raises(Unauthenticated):
            await client.authenticate()
    assert refused.value.status == 401
    assert "not-a-key" not in f"{refused.value} {refused.value.details} {client!r}"


async def test_the_line_end_of_a_key_s_file_does_no_harm(server_url: str) -> None:
    async with make_client(server_url, "alice ", api_key=f"{API_KEY}\n") as client:
        assert (await client.create_session("keys")).created_by == "alice"


@pytest.mark.parametrize("field", ["api_key", "token", "agent_id", "agent_type"])
def test_what_no_header_can_carry_is_refused_without_showing_it(field: str) -> None:
    for value in ("secret\r\nX-Agent-ID: root", "secret \ud800"):
        with pytest.raises(InvalidArgument) as refused:
            SharedContextClient(**{field: value})  # type: ignore[arg-type]
        assert refused.value.details == {"field": field}
        assert "secret" not in str(refused.value)


async def test_what_a_newer_server_adds_is_no_error(
    client: SharedContextClient, relay: Relay
) -> None:
    body = b'{"success":true,"session_id":"s","status":"archived","closed_at":null,"colour":"red"}'
    relay.faults.append(answer_bytes("200 OK", body))
    other = b'{"success":false,"error":"Moved.","code":"SESSION_MOVED","details":{"to":"x"}}'
    relay.faults.append(answer_bytes("410 Gone", other))
    async with make_client(relay.url) as newer:
        assert (await newer.close_session("s")).status == "archived"
        with pytest.raises(SharedContextError) as unknown:
            await newer.close_session("s")
    assert (unknown.value.code, unknown.value.status) == ("SESSION_MOVED", 410)


async def test_another_service_s_answer_is_not_taken_for_ours(relay: Relay) -> None:
    relay.faults += [answer_bytes("200 OK", b"<html>Log in</html>"), answer_bytes("418 Teapot")]
    relay.faults.append(answer_bytes("200 OK", b"no gzip", "Content-Encoding: gzip"))
    async with make_client(relay.url) as client:
        for status in (200, 418, 200):
            with pytest.raises(UnexpectedAnswer) as unexpected:
                await client.list_sessions()
            assert unexpected.value.status == status


async def test_fifty_calls_at_once_share_one_pool(server_url: str) -> None:
    async with make_client(server_url) as client:
        session_id = await create_session(client)
        added = await asyncio.gather(
            *(client.add_message(session_id, f"message {n}") for n in range(50))
        )
    assert sorted(one.seq for one in added) == list(range(1, 51))


async def test_a_cancelled_call_leaves_the_client_usable(server_url: str) -> None:
    async with make_client(server_url, limits=Limits(max_connections=2)) as client:
        session_id = await create_session(client)
        for _ in range(5):
            waiting = asyncio.create_task(client.wait_for_messages(session_id, timeout_seconds=60))
            await client.list_sessions()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        async with asyncio.timeout(10):
            assert (await client.add_message(session_id, "still here")).seq == 1


async def test_a_call_that_is_cancelled_at_any_step_gives_its_connection_back(
    server_url: str,
) -> None:
    async with make_client(server_url, limits=Limits(max_connections=1)) as client:
        async with asyncio.timeout(PATIENCE_S):
            for steps in range(50):
                call = asyncio.create_task(client.list_sessions())
                for _ in range(steps):
                    await asyncio.sleep(0)
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
                await client.list_sessions()


async def test_address_and_key_come_from_the_environment(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCS_URL", f"{server_url}/mcp")
    monkeypatch.setenv("SCS_API_KEY", ADMIN_API_KEY)
    async with SharedContextClient(agent_id="root") as client:
        assert client.url == server_url
        await client.get_audit_log()


def test_an_address_that_is_none_is_refused() -> None:
    for url in ("localhost:8000", "ftp://host", "http://", "http://localhost:99999"):
        with pytest.raises(InvalidArgument) as wrong:
            SharedContextClient(url)
        assert wrong.value.details["field"] == "url"


async def test_an_agent_s_name_may_be_any_text(server_url: str) -> None:
    async with make_client(server_url, "Zoë 二") as client:
        created = await client.create_session("names")
    assert created.created_by == "Zoë 二"
