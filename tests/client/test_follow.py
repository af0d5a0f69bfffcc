"""follow() shows every message once and in order, whatever happens in between."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from shared_context_client import (
    CursorLost,
    Limits,
    MessageItem,
    Retries,
    ServerUnavailable,
    SessionNotFound,
    SharedContextClient,
    SharedContextError,
    Unauthenticated,
)
from tests.client.conftest import (
    PATIENCE_S,
    Relay,
    RestartableServer,
    answer_bytes,
    create_session,
    make_client,
    relay_to,
)

WAIT = "/mcp/tool/wait_for_messages"


async def read(messages: AsyncIterator[MessageItem], count: int) -> list[int]:
    async with asyncio.timeout(PATIENCE_S):
        return [(await anext(messages)).seq for _ in range(count)]


async def read_to_the_end(messages: AsyncIterator[MessageItem]) -> list[int]:
    async with asyncio.timeout(PATIENCE_S):
        return [message.seq async for message in messages]


async def add(client: SharedContextClient, session_id: str, count: int) -> None:
    for n in range(count):
        await client.add_message(session_id, f"message {n}")


async def test_what_was_there_and_what_comes(client: SharedContextClient) -> None:
    session_id = await create_session(client)
    await add(client, session_id, 70)
    async with aclosing(client.session(session_id).follow(0)) as messages:
        assert await read(messages, 70) == list(range(1, 71))
        await add(client, session_id, 2)
        assert await read(messages, 2) == [71, 72]


async def test_from_now_on_is_where_it_begins_by_default(client: SharedContextClient) -> None:
    session_id = await create_session(client)
    await add(client, session_id, 3)
    async with aclosing(client.session(session_id).follow()) as messages:
        first = asyncio.create_task(read(messages, 1))
        added = 3
        while not first.done():  # from when on is not told: write until one is seen
            await client.add_message(session_id, "is anyone there?")
            added += 1
        assert 3 < (await first)[0] <= added


@pytest.mark.parametrize("are_streams_usable", [True, False], ids=["stream", "poll"])
async def test_it_ends_when_the_session_is_closed_and_has_shown_all(
    server_url: str, are_streams_usable: bool
) -> None:
    async with make_client(server_url, limits=Limits(poll_s=0.5)) as client:
        client._connection.are_streams_usable = are_streams_usable
        session_id = await create_session(client)
        following = asyncio.create_task(read_to_the_end(client.session(session_id).follow(0)))
        await add(client, session_id, 3)
        await client.close_session(session_id)
        assert await following == [1, 2, 3]
        assert await read_to_the_end(client.session(session_id).follow(1)) == [2, 3]


async def test_a_deleted_session_is_an_error(client: SharedContextClient) -> None:
    session_id = await create_session(client)
    await add(client, session_id, 1)
    async with aclosing(client.session(session_id).follow(0)) as messages:
        await read(messages, 1)
        await client.delete_session(session_id)
        with pytest.raises(SessionNotFound):
            await read(messages, 1)
    with pytest.raises(SessionNotFound):
        await read_to_the_end(client.session(session_id).follow(0))


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
async def test_restarts_of_the_server_lose_and_double_nothing(
    own_server: RestartableServer, sig: signal.Signals
) -> None:
    async with make_client(own_server.url) as client, make_client(own_server.url, "bob") as bob:
        session_id = await create_session(client)
        async with aclosing(client.session(session_id).follow(0)) as messages:
            seen: list[int] = []
            for _ in range(2):
                await add(bob, session_id, 5)
                seen += await read(messages, 3)
                next_one = asyncio.create_task(read(messages, 1))
                await asyncio.to_thread(own_server.restart, sig)
                seen += await next_one
                await add(bob, session_id, 2)
            seen += await read(messages, 14 - len(seen))
    assert seen == list(range(1, 15))


async def test_a_connection_that_breaks_is_taken_up_where_it_was(relay: Relay) -> None:
    async with make_client(relay.url) as client:
        session_id = await create_session(client)
        await add(client, session_id, 3)
        gone = b'data: {"half": '
        relay.faults.append(answer_bytes("200 OK", gone, "Content-Type: text/event-stream"))
        assert await read(client.session(session_id).follow(0), 3) == [1, 2, 3]
        assert len(relay.lines("/events")) == 2
        assert not relay.lines(WAIT)


async def test_what_a_stream_shows_again_is_not_shown_again(relay: Relay) -> None:
    async with make_client(relay.url) as client:
        session_id = await create_session(client)
        await add(client, session_id, 3)
        page = await client.get_messages(session_id, after_seq=0)
        one, two = (f"id: {m.seq}\ndata: {m.model_dump_json()}\n\n" for m in page.messages[:2])
        again = (one + one + two + one).encode()
        relay.faults.append(answer_bytes("200 OK", again, "Content-Type: text/event-stream"))
        assert await read(client.session(session_id).follow(0), 3) == [1, 2, 3]


@pytest.mark.parametrize("manner, tries", [("holds_streams", 1), ("cuts_streams", 3)])
async def test_a_proxy_that_lets_no_stream_through_is_polled_through(
    server_url: str, manner: str, tries: int
) -> None:
    limits = Limits(stream_silence_s=0.5)
    async with relay_to(server_url) as relay, make_client(relay.url, limits=limits) as client:
        setattr(relay, manner, True)
        session_id = await create_session(client)
        await add(client, session_id, 2)
        async with aclosing(client.session(session_id).follow(0)) as messages:
            assert await read(messages, 2) == [1, 2]
            await add(client, session_id, 1)
            assert await read(messages, 1) == [3]
        assert relay.lines(WAIT)
        assert len(relay.lines("/events")) == tries  # the next follower does not try it again
        assert await read(client.session(session_id).follow(2), 1) == [3]
        assert len(relay.lines("/events")) == tries


@pytest.mark.parametrize(
    "answer",
    [
        answer_bytes("404 Not Found", b"<html>no such page</html>"),
        answer_bytes("200 OK", b"<html>hello</html>", "Content-Type: text/html"),
    ],
    ids=["not found", "another page"],
)
async def test_where_there_are_no_streams_it_polls(relay: Relay, answer: bytes) -> None:
    async with make_client(relay.url) as client:
        session_id = await create_session(client)
        await add(client, session_id, 1)
        relay.faults.append(answer)
        assert await read(client.session(session_id).follow(0), 1) == [1]
        assert relay.lines(WAIT)


async def test_a_stream_renews_its_token(relay: Relay) -> None:
    async with make_client(relay.url) as client:
        session_id = await create_session(client)
        await add(client, session_id, 1)
        await client.authenticate()
        await client.revoke_token()
        assert await read(client.session(session_id).follow(0), 1) == [1]


@pytest.mark.parametrize("has_key", [True, False])
async def test_a_token_that_ends_under_a_stream_is_renewed_or_raised(
    relay: Relay, has_key: bool
) -> None:
    async with make_client(relay.url) as client:
        session_id = await create_session(client)
        await add(client, session_id, 1)
        token = (await client.authenticate()).token
        follower = client if has_key else make_client(relay.url, api_key=None, token=token)
        async with follower, aclosing(follower.session(session_id).follow(0)) as messages:
            assert await read(messages, 1) == [1]
            opened = len(relay.lines("/events"))
            async with make_client(relay.url) as other:
                await other.revoke_token(auth_token=token)
                await add(other, session_id, 1)
                if has_key:
                    assert await read(messages, 1) == [2]
                else:
                    with pytest.raises(Unauthenticated):
                        await read(messages, 1)
                assert len(relay.lines("/events")) == opened + has_key


async def test_a_credential_that_is_refused_ends_it(server_url: str) -> None:
    async with make_client(server_url, api_key="not-a-key-of-this-server") as client:
        with pytest.raises(Unauthenticated):
            await read_to_the_end(client.session("session_0000000000000000").follow(0))


async def test_a_stream_that_would_take_the_last_connection_is_refused(server_url: str) -> None:
    async with make_client(server_url, limits=Limits(max_connections=2)) as client:
        session_id = await create_session(client)
        await add(client, session_id, 1)
        async with aclosing(client.session(session_id).follow(0)) as messages:
            assert await read(messages, 1) == [1]
            with pytest.raises(SharedContextError) as refused:
                await read(client.session(session_id).follow(0), 1)
            assert refused.value.code == "TOO_MANY_STREAMS"
        assert await read(client.session(session_id).follow(0), 1) == [1]


async def test_patience_has_an_end_if_one_is_given(relay: Relay) -> None:
    async with make_client(relay.url, retries=Retries(deadline_s=0)) as client:
        session_id = await create_session(client)
        await relay.stop()
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(ServerUnavailable):
                async for _ in client.session(session_id).follow(0, patience_s=0.5):
                    pass


async def test_a_cursor_that_the_log_ends_before_is_told_to_who_follows(
    client: SharedContextClient,
) -> None:
    session_id = await create_session(client)
    await add(client, session_id, 2)
    with pytest.raises(CursorLost):
        await read_to_the_end(client.session(session_id).follow(5))


async def test_a_store_that_is_set_back_ends_the_following(
    own_server: RestartableServer, tmp_path: Path
) -> None:
    database, saved = tmp_path / "data" / "shared_context.db", tmp_path / "saved.db"
    async with make_client(own_server.url) as client:
        session_id = await create_session(client)
        await add(client, session_id, 1)
        copy_database(database, saved)
        await add(client, session_id, 1)
        async with aclosing(client.session(session_id).follow(0)) as messages:
            assert await read(messages, 2) == [1, 2]
            copy_database(saved, database)
            with pytest.raises(CursorLost):
                await read(messages, 1)


def copy_database(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)
