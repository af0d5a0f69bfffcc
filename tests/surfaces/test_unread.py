"""Unread mentions, told once with the next answer on every surface."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport

from shared_context_server.server import Server, open_server
from shared_context_server.services.mentions import MAX_UNREAD
from shared_context_server.tools.mcp import UNREAD_META
from tests.settings import make_settings
from tests.surfaces.conftest import headers_of, serve


class Agent:
    """An agent over HTTP, and what it was last told of unread mentions."""

    def __init__(self, url: str, agent_id: str, **named: str) -> None:
        instance = {"X-Agent-Instance": named.pop("instance", "")}
        headers = headers_of(agent_id, **named) | instance
        self.http = httpx.AsyncClient(base_url=url, headers=headers, timeout=30)
        self.told: dict[str, int] | None = None

    async def call(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        response = await self.http.post(f"/mcp/tool/{tool}", json=arguments)
        self._note(response)
        body: dict[str, Any] = response.json()
        assert response.status_code == 200, body
        return body

    def _note(self, response: httpx.Response) -> None:
        """Keep the newest seq told of each session."""
        value = response.headers.get("x-unread-mentions")
        self.told = None
        if value is not None:
            told = json.loads(value)
            assert told["count"] >= len(told["sessions"])
            self.told = {one["session_id"]: one["newest_seq"] for one in told["sessions"]}

    async def learn(self) -> dict[str, int] | None:
        """What it is told with an answer to any call."""
        await self.call("get_time")
        return self.told


class Room:
    """A session of alice's."""

    def __init__(self, server: Server, alice: Agent, session_id: str) -> None:
        self.server, self.alice, self.id = server, alice, session_id

    async def say(self, content: str, by: Agent | None = None, **arguments: Any) -> int:
        added = await (by or self.alice).call(
            "add_message", session_id=self.id, content=content, **arguments
        )
        await self.server.services.mentions.finish()
        seq: int = added["seq"]
        return seq


@pytest.fixture
async def agents(server: Server, url: str) -> AsyncIterator[Any]:
    """`await agents("bob")` is an agent that the server knows already."""
    async with AsyncExitStack() as stack:

        async def connect(agent_id: str, **named: str) -> Agent:
            agent = Agent(url, agent_id, **named)
            await stack.enter_async_context(agent.http)
            await agent.call("get_time")
            await server.services.mentions.finish()
            return agent

        yield connect


async def open_room(server: Server, alice: Agent, **arguments: Any) -> Room:
    created = await alice.call("create_session", purpose="x", **arguments)
    return Room(server, alice, created["session_id"])


async def test_a_mention_is_told_once_to_each_instance(server: Server, agents: Any) -> None:
    alice, bob, eve = await agents("alice"), await agents("bob"), await agents("eve")
    window = await agents("bob", instance="window")
    room = await open_room(server, alice)
    assert await bob.learn() is None
    await room.say("nothing for anybody, not for a@bob or @bobby")
    assert await bob.learn() is None
    second = await room.say("hello @bob!")
    assert [await bob.learn() for _ in "ab"] == [{room.id: second}, None]
    third = await room.say("to you", recipients=["bob"], visibility="private")
    assert [await bob.learn() for _ in "ab"] == [{room.id: third}, None]
    assert [await window.learn() for _ in "ab"] == [{room.id: third}, None]
    assert [await one.learn() for one in (alice, eve)] == [None, None]
    other = await open_room(server, alice)
    first = await other.say("and here, \uff20bob")
    assert await bob.learn() == {room.id: third, other.id: first}
    await alice.call("delete_session", session_id=room.id)
    await other.say("once more, @bob")
    assert await bob.learn() == {other.id: 2}


@pytest.mark.parametrize(
    "tool, arguments",
    [
        ("get_messages", {}),
        ("get_messages", {"after_seq": 0, "sender": "alice"}),
        ("mark_read", {"seq": 2}),
        ("wait_for_messages", {"after_seq": 0}),
        ("get_digest", {}),
    ],
)
async def test_what_was_read_is_not_told(
    server: Server, agents: Any, tool: str, arguments: dict[str, Any]
) -> None:
    alice, bob = await agents("alice"), await agents("bob")
    room = await open_room(server, alice)
    for _ in range(2):
        await room.say("hello @bob")
    await bob.call(tool, session_id=room.id, **arguments)
    assert bob.told is None
    await server.services.mentions.catch_up()  # which reads the messages once more
    await server.services.mentions.finish()
    assert await bob.learn() is None
    third = await room.say("hello @bob")
    assert await bob.learn() == {room.id: third}


async def test_only_what_the_caller_may_see_counts(server: Server, agents: Any) -> None:
    alice = await agents("alice", agent_type="claude")
    bob, carol = await agents("bob", agent_type="gpt"), await agents("carol", agent_type="gpt")
    room = await open_room(server, alice, access="invited", participants=["bob"])
    await room.say("@bob @carol", visibility="agent_only")
    await room.say("@bob", visibility="admin_only")
    await room.say("@bob", visibility="private", recipients=["alice"])
    await room.say("my own @bob", by=bob)
    assert await bob.learn() is None
    seq = await room.say("@bob @carol")
    assert await bob.learn() == {room.id: seq}
    assert await carol.learn() is None


async def test_hidden_mentions_neither_use_up_nor_displace_what_one_may_see(
    server: Server, agents: Any
) -> None:
    alice = await agents("alice", agent_type="claude")
    bob = await agents("bob", agent_type="gpt")
    room = await open_room(server, alice)
    seq = await room.say("@bob")
    for _ in range(MAX_UNREAD + 1):
        await room.say("@bob", visibility="private", recipients=["alice"])
    typed = await room.say("@bob", visibility="agent_only")
    assert await bob.learn() == {room.id: seq}
    claude = await agents("bob", agent_type="claude")
    assert claude.told == {room.id: typed}


@pytest.mark.parametrize("asks", [False, True])
async def test_an_answer_over_mcp_has_a_second_text_and_meta(
    server: Server, agents: Any, url: str, asks: bool
) -> None:
    alice, _ = await agents("alice"), await agents("bob")
    room = await open_room(server, alice)
    seq = await room.say("hello @bob", requires_ack=asks)
    # The first call takes the direct lane, the others go through the SDK.
    answers = []
    calls = (("get_time", {}), ("get_time", {"x-fastmcp": 1}), ("wait_for_messages", {}))
    for mode in ("2026-07-28", "legacy"):
        transport = StreamableHttpTransport(f"{url}/mcp", headers=headers_of("bob"))
        async with Client(transport, mode=mode) as client:  # type: ignore[arg-type]
            for number, (tool, meta) in enumerate(calls):
                named = {"threadId": f"{mode} {number}", **meta}
                waits = {"session_id": room.id, "timeout_seconds": 0, "after_seq": seq}
                arguments = waits if tool == "wait_for_messages" else {}
                result = await client.call_tool(tool, arguments, meta=named)
                first, second = result.content
                assert json.loads(first.text) == result.structured_content  # type: ignore[union-attr]
                assert result.meta is not None
                answers.append((second.text, result.meta[UNREAD_META]))  # type: ignore[union-attr]
                again = await client.call_tool("get_time", {}, meta=named)
                assert len(again.content) == 1
                assert UNREAD_META not in (again.meta or {})
    text = (
        f"1 unread mention of you{' (1 to acknowledge)' if asks else ''} in {room.id}, newest seq {seq}: "
        f'get_messages(session_id="{room.id}", after_seq={seq - 1}).'
    )
    one = {"session_id": room.id, "count": 1, "first_seq": seq, "newest_seq": seq}
    asking = {"requires_ack": 1} if asks else {}
    assert answers == [(text, {"count": 1, **asking, "sessions": [one]})] * len(answers)
    assert len(answers) == 6


async def test_a_batch_tells_once_for_all_its_calls(server: Server, agents: Any) -> None:
    alice, bob = await agents("alice"), await agents("bob")
    room = await open_room(server, alice)
    seq = await room.say("hello @bob")
    calls = [{"tool": "get_time"}, {"tool": "get_time"}]
    response = await bob.http.post("/mcp/batch", json={"calls": calls})
    told = json.loads(response.headers["x-unread-mentions"])
    assert told["sessions"][0]["newest_seq"] == seq
    assert await bob.learn() is None


async def test_a_mention_that_another_process_wrote_is_told(server: Server, agents: Any) -> None:
    alice, bob = await agents("alice"), await agents("bob")
    room = await open_room(server, alice)
    async with open_server(server.settings) as other:
        connection = await other.services.identity.authenticate_headers(
            authorization=None,
            api_key=headers_of("alice")["X-API-Key"],
            agent_id="alice",
            agent_type=None,
        )
        for content in ("before", "hello @bob"):
            arguments = {"session_id": room.id, "content": content}
            await other.dispatcher.call("add_message", arguments, connection)
    told = await bob.learn()
    if told is None:  # the server looks within a second; on a busy machine it has looked
        await server.services.mentions.catch_up()
        await server.services.mentions.finish()
        told = await bob.learn()
    assert told == {room.id: 2}


async def test_after_a_restart_only_what_is_not_marked_as_read_is_told(tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "data")
    async with serve(settings) as (server, url), AsyncExitStack() as stack:
        alice, bob = Agent(url, "alice"), Agent(url, "bob")
        for agent in (alice, bob):
            await stack.enter_async_context(agent.http)
        read, unread = [await open_room(server, alice) for _ in "ab"]
        for room in (read, unread):
            await room.say("hello @bob")
        await bob.call("mark_read", session_id=read.id, seq=1)
    async with serve(settings) as (server, url):
        bob = Agent(url, "bob")
        async with bob.http:
            assert await bob.learn() is None  # this call makes the server look
            await server.services.mentions.finish()
            assert await bob.learn() == {unread.id: 1}


async def test_a_setting_turns_it_off(tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "data", unread_mentions=False)
    async with serve(settings) as (server, url):
        alice, bob = Agent(url, "alice"), Agent(url, "bob")
        async with alice.http, bob.http:
            await bob.learn()
            room = await open_room(server, alice)
            await room.say("hello @bob")
            assert await bob.learn() is None
