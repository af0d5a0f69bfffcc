"""GET /events: every message once and in order, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Message

from shared_context_server.auth.middleware import protect
from shared_context_server.cli.connections import Connection
from shared_context_server.models import Caller, Event, EventKind, Permission, Visibility
from shared_context_server.rest.events import EventsEndpoint
from shared_context_server.server import Server, open_server
from shared_context_server.storage.contract import NewMessage
from tests.rest.conftest import (
    OpenClient,
    assert_error,
    call,
    client_of,
    create_session,
)
from tests.settings import ADMIN_API_KEY, API_KEY, make_settings
from tests.surfaces.conftest import serve
from tests.until import until

PATIENCE_S = 30


@dataclass(frozen=True)
class Sent:
    """One event as it came."""

    event: str
    data: dict[str, Any]
    id: int | None


class Stream:
    """The events of one response."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def next(self) -> Sent:
        fields: dict[str, str] = {}
        while True:
            line = await asyncio.wait_for(anext(self._lines), PATIENCE_S)
            if not line and "data" in fields:
                event_id = fields.get("id")
                return Sent(
                    fields["event"],
                    json.loads(fields["data"]),
                    None if event_id is None else int(event_id),
                )
            name, _, value = line.partition(": ")
            fields[name] = value

    async def next_message(self) -> Sent:
        while (sent := await self.next()).event != "message":
            pass
        return sent

    async def next_hint(self, event: str) -> Sent:
        while (sent := await self.next()).event != event:
            pass
        return sent

    async def ends(self) -> bool:
        """Whether it ends, rather than go on in silence."""
        async with asyncio.timeout(PATIENCE_S):
            async for _ in self._lines:
                pass
        return True


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[tuple[Server, str]]:
    async with serve(make_settings(tmp_path)) as started:
        yield started


@pytest.fixture
def server(running: tuple[Server, str]) -> Server:
    return running[0]


@pytest.fixture
def url(running: tuple[Server, str]) -> str:
    return running[1]


@asynccontextmanager
async def follow(
    url: str,
    agent_id: str,
    session_id: str | None = None,
    *,
    last_id: int | None = None,
    api_key: str = API_KEY,
) -> AsyncIterator[Stream]:
    headers = {"X-API-Key": api_key, "X-Agent-ID": agent_id}
    if last_id is not None:
        headers["Last-Event-ID"] = str(last_id)
    params = {} if session_id is None else {"session_id": session_id}
    async with (
        httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE_S) as http,
        http.stream("GET", "/events", params=params) as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Stream(response)


def client_named(server: Server, agent_id: str) -> httpx.AsyncClient:
    return client_of(server, X_API_Key=API_KEY, X_Agent_ID=agent_id)


@pytest.fixture
async def alice(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with client_named(server, "alice") as client:
        yield client


async def add(client: httpx.AsyncClient, session_id: str, content: str, **more: Any) -> int:
    added = await call(client, "add_message", session_id=session_id, content=content, **more)
    seq: int = added["seq"]
    return seq


def subscribers(server: Server, count: int) -> Callable[[], bool]:
    return lambda: server.services.bus.subscriber_count == count


# Messages


async def test_a_stream_begins_now_and_shows_messages_as_get_messages_does(
    server: Server, url: str, alice: httpx.AsyncClient
) -> None:
    session_id = await create_session(alice)
    await add(alice, session_id, "before")
    async with follow(url, "bob", session_id) as stream:
        await add(alice, session_id, "line\nbreak\r\x85\u2028\u2029 é", metadata={"a": [1]})
        sent = await stream.next_message()
        shown = await call(alice, "get_messages", session_id=session_id, after_seq=1)
        assert (sent.id, sent.data) == (2, shown["messages"][0])


async def test_times_have_microseconds_even_on_a_whole_second(
    server: Server, url: str, alice: httpx.AsyncClient
) -> None:
    session_id = await create_session(alice)
    message = NewMessage(
        session_id=session_id,
        sender=Caller("alice", "test", frozenset(Permission), key_id="key"),
        content="at noon",
        visibility=Visibility.PUBLIC,
        recipients=(),
        metadata={},
        parent_message_id=None,
        created_at=datetime(2030, 1, 1, 12, tzinfo=UTC),
    )
    await server.services.store.messages.append(message, lambda _: None)
    async with follow(url, "bob", session_id, last_id=0) as stream:
        sent = await stream.next_message()
    shown = await call(alice, "get_messages", session_id=session_id)
    assert sent.data == shown["messages"][0]
    assert sent.data["timestamp"] == "2030-01-01T12:00:00.000000Z"


async def test_a_stream_resumes_behind_the_last_event(url: str, alice: httpx.AsyncClient) -> None:
    session_id = await create_session(alice)
    for number in range(100):
        await add(alice, session_id, str(number))
    async with follow(url, "bob", session_id, last_id=0) as stream:
        assert [(await stream.next_message()).id for _ in range(100)] == list(range(1, 101))
    async with follow(url, "bob", session_id, last_id=97) as stream:
        assert [(await stream.next_message()).id for _ in range(3)] == [98, 99, 100]


async def test_only_what_the_reader_may_see_is_sent(
    server: Server, url: str, alice: httpx.AsyncClient
) -> None:
    session_id = await create_session(alice)
    async with follow(url, "eve", session_id) as eve, follow(url, "bob") as bob:
        await add(alice, session_id, "psst", visibility="private", recipients=["bob"])
        await add(alice, session_id, "admins", visibility="admin_only")
        await add(alice, session_id, "all")
        assert (await eve.next_message()).data["content"] == "all"
        assert [(await bob.next_message()).data["content"] for _ in range(2)] == ["psst", "all"]
    async with follow(url, "root", session_id, last_id=0, api_key=ADMIN_API_KEY) as root:
        assert [(await root.next_message()).id for _ in range(3)] == [1, 2, 3]


async def test_a_stream_of_everything_resumes_by_message_id_and_keeps_to_invited_sessions(
    url: str, alice: httpx.AsyncClient
) -> None:
    open_id = await create_session(alice)
    invited_id = await create_session(alice, access="invited", participants=["bob"])
    expected = []
    for number in range(5):
        added = await call(alice, "add_message", session_id=open_id, content=f"open {number}")
        await add(alice, invited_id, f"invited {number}")
        expected.append(added["message_id"])
    async with follow(url, "eve", last_id=0) as eve:
        assert [(await eve.next_message()).id for _ in range(5)] == expected
    async with follow(url, "bob", last_id=expected[1]) as bob:
        contents = [(await bob.next_message()).data["content"] for _ in range(7)]
    assert contents == ["invited 1", *(f"{k} {n}" for n in (2, 3, 4) for k in ("open", "invited"))]


async def test_much_that_is_not_visible_holds_no_stream_up(
    server: Server, url: str, alice: httpx.AsyncClient
) -> None:
    hidden = await create_session(alice, access="invited")
    seen = await create_session(alice)
    for _ in range(12):
        batch = [{"tool": "add_message", "arguments": {"session_id": hidden, "content": "x"}}] * 100
        assert (await alice.post("/mcp/batch", json={"calls": batch})).status_code == 200
    await add(alice, seen, "here")
    async with follow(url, "eve", last_id=0) as eve:
        assert (await eve.next_message()).data["content"] == "here"


@pytest.mark.parametrize("is_all_sessions", [False, True], ids=["session", "everything"])
async def test_nothing_is_lost_or_doubled_however_often_one_resumes(
    server: Server, url: str, is_all_sessions: bool
) -> None:
    chance = random.Random(4)
    written = 150
    names = [f"writer-{number}" for number in range(5)]
    clients = [client_named(server, name) for name in names]
    session_id = await create_session(clients[0])
    seen: list[Sent] = []

    async def write(client: httpx.AsyncClient) -> None:
        for number in range(written // len(clients)):
            private = {"visibility": "private", "recipients": ["reader"]}
            await add(client, session_id, str(number), **(private if number % 3 else {}))
            await add(client, session_id, "not for you", visibility="private")

    async def read() -> None:
        while len(seen) < written:
            last_id = seen[-1].id if seen else 0
            where = None if is_all_sessions else session_id
            async with follow(url, "reader", where, last_id=last_id) as stream:
                count = min(chance.randint(1, 25), written - len(seen))
                seen.extend([await stream.next_message() for _ in range(count)])

    async with asyncio.timeout(PATIENCE_S * 2), asyncio.TaskGroup() as tasks:
        tasks.create_task(read())
        for client in clients:
            tasks.create_task(write(client))
    by_writer = {
        name: [s.data["content"] for s in seen if s.data["sender"] == name] for name in names
    }
    expected = [str(number) for number in range(written // len(clients))]
    assert by_writer == dict.fromkeys(names, expected)
    assert [sent.data["seq"] for sent in seen] == sorted({sent.data["seq"] for sent in seen})
    for client in clients:
        await client.aclose()


# Hints


async def test_other_events_are_hints_without_an_id(url: str, alice: httpx.AsyncClient) -> None:
    async with follow(url, "bob") as bob:
        session_id = await create_session(alice)
        here = {"session_id": session_id}
        assert await bob.next_hint("session_created") == Sent("session_created", here, None)
        await call(alice, "set_memory", key="k", value=1, scope="shared", **here)
        assert (await bob.next_hint("memory_changed")).data == here | {
            "key": "k",
            "scope": "shared",
        }
        await call(alice, "acquire_lease", name="l", **here)
        assert (await bob.next_hint("lease_changed")).data == here | {"name": "l"}
        await call(alice, "close_session", **here)
        assert (await bob.next_hint("session_closed")).data == here
        await call(alice, "delete_session", **here)
        assert (await bob.next_hint("session_deleted")).data == here


async def test_hints_tell_nothing_of_what_one_may_not_see(
    url: str, alice: httpx.AsyncClient
) -> None:
    async with follow(url, "eve") as eve:
        hidden = await create_session(alice, access="invited")
        await call(alice, "set_memory", key="mine", value=1)
        await call(alice, "set_memory", key="mine", value=1, session_id=hidden, scope="shared")
        await call(alice, "delete_session", session_id=hidden)
        await call(alice, "set_memory", key="ours", value=1, scope="shared")
        ours = {"session_id": None, "key": "ours", "scope": "shared"}
        assert (await eve.next()).data in (ours, {"agent_id": "alice"}, {"agent_id": "eve"})
        assert (await eve.next_hint("memory_changed")).data == ours


async def test_a_stream_ends_with_its_session(url: str, alice: httpx.AsyncClient) -> None:
    session_id = await create_session(alice)
    async with follow(url, "bob", session_id) as stream:
        await call(alice, "close_session", session_id=session_id)
        assert (await stream.next()).event == "session_closed"
        await call(alice, "delete_session", session_id=session_id)
        assert (await stream.next_hint("session_deleted")).data == {"session_id": session_id}
        assert await stream.ends()


async def test_agents_that_come_are_told(server: Server, url: str) -> None:
    async with follow(url, "bob") as bob, client_named(server, "carol") as carol:
        await call(carol, "list_sessions")
        await server.services.presence.flush()
        joined = {(await bob.next_hint("agent_joined")).data["agent_id"] for _ in range(2)}
        assert joined == {"bob", "carol"}


# Life of a stream


async def test_errors_come_before_the_stream_and_in_the_one_shape(
    agent: httpx.AsyncClient, stranger: httpx.AsyncClient, server: Server
) -> None:
    hidden = await create_session(agent, access="invited")
    assert_error(await stranger.get("/events"), 401, "UNAUTHENTICATED")
    async with client_named(server, "eve") as eve:
        for session_id in (hidden, "session_0"):
            refused = await eve.get("/events", params={"session_id": session_id})
            assert_error(refused, 404, "SESSION_NOT_FOUND", "session_id")
        unknown = await eve.get("/events", params={"session": "x"})
        assert_error(unknown, 400, "INVALID_ARGUMENT", "session")
        empty = await eve.get("/events", params={"session_id": ""})
        assert_error(empty, 400, "INVALID_ARGUMENT", "session_id")
        for wrong in ("-1", "x", "1.5", "9" * 30):
            answer = await eve.get("/events", headers={"Last-Event-ID": wrong})
            assert_error(answer, 400, "INVALID_ARGUMENT", "Last-Event-ID")


async def test_clients_that_vanish_free_their_subscriptions(
    server: Server, url: str, alice: httpx.AsyncClient
) -> None:
    session_id = await create_session(alice)
    request = (
        f"GET /events?session_id={session_id} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"X-API-Key: {API_KEY}\r\nX-Agent-ID: bob\r\n\r\n"
    )
    port = int(url.rsplit(":", 1)[1])
    writers = []
    for _ in range(50):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request.encode())
        writers.append(writer)
    await until(subscribers(server, 50))
    for writer in writers:
        writer.transport.abort()
    await until(subscribers(server, 0))


async def test_a_revoked_token_ends_its_stream(
    server: Server, url: str, alice: httpx.AsyncClient
) -> None:
    session_id = await create_session(alice)
    granted = await call(alice, "authenticate_agent", agent_id="bob", api_key=API_KEY)
    bearer = {"Authorization": f"Bearer {granted['token']}"}
    async with (
        httpx.AsyncClient(base_url=url, headers=bearer, timeout=PATIENCE_S) as http,
        http.stream("GET", "/events", params={"session_id": session_id}) as response,
    ):
        await call(alice, "revoke_token", auth_token=granted["token"])
        await add(alice, session_id, "secret")
        lines = (await response.aread()).decode().split("\n")
    assert [line for line in lines if line and not line.startswith(":")] == [
        "event: credential_ended",
        f'data: {{"session_id":"{session_id}"}}',
    ]


async def test_streams_end_when_the_server_stops(server: Server, url: str) -> None:
    async with follow(url, "bob") as stream:
        server.stop()
        assert await stream.ends()


async def test_a_head_request_opens_no_stream(url: str, server: Server) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as http:
        headers = {"X-API-Key": API_KEY, "X-Agent-ID": "bob"}
        assert (await http.head("/events", headers=headers)).status_code == 200
    assert server.services.bus.subscriber_count == 0


@asynccontextmanager
async def serve_events(server: Server, **options: float) -> AsyncIterator[str]:
    """The route alone, with times of the test's own and connections that are soon cut off."""

    class ShortTimeout(Connection):
        read_timeout_s = options.pop("read_timeout_s", 600.0)

    services = server.services
    app = protect(
        Starlette(routes=[Route("/events", EventsEndpoint(services, **options))]),
        settings=services.settings,
        identity=services.identity,
        public_paths=(),
    )
    config = uvicorn.Config(app, http=ShortTimeout, log_config=None, lifespan="off", ws="none")
    runner = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(runner.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            runner.should_exit = True
            await task


async def test_a_quiet_stream_has_heartbeats(server: Server) -> None:
    async with (
        serve_events(server, heartbeat_s=0.01) as url,
        httpx.AsyncClient(base_url=url, headers={"X-API-Key": API_KEY}, timeout=30) as http,
        http.stream("GET", "/events") as response,
    ):
        lines = response.aiter_lines()
        assert [await anext(lines) for _ in range(4)] == [": alive", "", ": alive", ""]


@pytest.mark.parametrize("cutter", ["send_timeout_s", "read_timeout_s"])
async def test_a_slow_reader_is_cut_off_and_frees_what_it_held(
    server: Server, alice: httpx.AsyncClient, cutter: str
) -> None:
    session_id = await create_session(alice)
    for _ in range(150):
        await add(alice, session_id, "x" * 100_000)
    async with serve_events(server, **{cutter: 0.2}) as url:
        port = int(url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(
            f"GET /events?session_id={session_id} HTTP/1.1\r\nHost: 127.0.0.1\r\nLast-Event-ID: 0\r\n"
            f"X-API-Key: {API_KEY}\r\nX-Agent-ID: bob\r\n\r\n".encode()
        )
        await reader.readline()
        await until(subscribers(server, 1))
        await until(subscribers(server, 0))
        received = 0
        try:
            async with asyncio.timeout(PATIENCE_S):
                while chunk := await reader.read(65_536):
                    received += len(chunk)
        except ConnectionResetError:
            assert cutter == "read_timeout_s"
        assert received < 150 * 100_000
        writer.close()


async def test_events_that_were_forgotten_cost_no_message(
    server: Server, url: str, alice: httpx.AsyncClient
) -> None:
    session_id = await create_session(alice)
    async with follow(url, "bob", session_id) as stream, follow(url, "bob") as common:
        await until(subscribers(server, 2))
        added = await server.services.store.sessions.get(session_id)
        assert added.last_seq == 0
        await add(alice, session_id, "one")
        for _ in range(1000):
            server.services.bus.deliver(Event(EventKind.LEASE_CHANGED, session_id, name="l"))
        await add(alice, session_id, "two")
        for reader in (stream, common):
            contents = [(await reader.next_message()).data["content"] for _ in range(2)]
            assert contents == ["one", "two"]


async def test_hints_of_what_other_processes_do_once_the_answer_has_begun_are_not_missed(
    tmp_path: Path,
) -> None:
    settings = make_settings(tmp_path)
    headers = {"X_API_Key": API_KEY, "X_Agent_ID": "alice"}
    received = b""
    has_come = asyncio.Event()
    async with (
        open_server(settings) as here,
        open_server(settings) as there,
        client_of(there, **headers) as alice,
    ):

        async def receive() -> Message:
            await has_come.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            nonlocal received
            if message["type"] == "http.response.start":
                await create_session(alice)
            received += message.get("body", b"")
            if b"event: session_created" in received:
                has_come.set()

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/events",
            "query_string": b"",
            "headers": [
                (b"host", b"127.0.0.1"),
                *(
                    (name.replace("_", "-").lower().encode(), headers[name].encode())
                    for name in headers
                ),
            ],
        }
        async with asyncio.timeout(PATIENCE_S):
            await here.app(scope, receive, send)


async def test_a_server_of_core_tools_has_the_route_too(open_agent: OpenClient) -> None:
    async with open_agent(tools="core") as client:
        assert_error(await client.get("/events", params={"x": "1"}), 400, "INVALID_ARGUMENT", "x")
