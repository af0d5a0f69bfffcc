"""What a client can send and leave unsent on a connection, and what becomes of it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared_context_server.cli import connections
from shared_context_server.cli.connection_limits import ConnectionLimits
from shared_context_server.cli.connections import MAX_HEAD_BYTES, MAX_HEADER_LINES, Connection
from tests.until import PATIENCE_S, until

HOST = b"Host: localhost\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@dataclass
class Peer:
    """A server whose app echoes, and waits at /wait until it is released."""

    port: int
    server: uvicorn.Server
    release: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def send(self, request: bytes) -> bytes:
        """All that is answered until the server ends the connection."""
        reader, writer = await self.dial()
        writer.write(request)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def serving(limits: ConnectionLimits | None = None, **timeouts: float) -> AsyncIterator[Peer]:
    class Timed(Connection):
        pass

    for name, value in timeouts.items():
        setattr(Timed, name, value)

    async def echo(request: Request) -> Response:
        body = await request.body()
        return JSONResponse({"headers": dict(request.headers), "body": body.decode()})

    async def wait(_request: Request) -> Response:
        peer.waiting += 1
        await peer.release.wait()
        return Response("waited")

    async def ignore(_request: Request) -> Response:
        return Response("unread")

    async def large(_request: Request) -> Response:
        return Response(b"x" * 50_000_000)

    routes = [
        Route("/", echo, methods=["GET", "POST"]),
        Route("/wait", wait),
        Route("/unread", ignore, methods=["POST"]),
        Route("/large", large),
    ]
    config = uvicorn.Config(
        Starlette(routes=routes),
        http=partial(Timed, limits=limits),  # type: ignore[arg-type]  # whatever makes a protocol
        log_config=None,
        lifespan="off",
        ws="none",
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=500) as listener:
        peer = Peer(listener.getsockname()[1], server)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await until(lambda: server.started)
            yield peer
        finally:
            peer.release.set()
            server.should_exit = True
            await task


def assert_refused(answer: bytes, status: int, code: str) -> dict[str, Any]:
    """That the answer is this error alone, and says that the connection ends."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert b"connection: close" in head
    error: dict[str, Any] = json.loads(body)
    assert (error["success"], error["code"]) == (False, code)
    return error


# Sizes


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n" * MAX_HEADER_LINES + b"\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * (MAX_HEAD_BYTES * 2),
        b"GET / HTTP/1.1\r\n" + HOST + b"a" * (MAX_HEAD_BYTES * 2),
        b"\r\n" * MAX_HEAD_BYTES,
        CHUNKED + b"0\r\nX: " + b"a" * (MAX_HEAD_BYTES * 2),
        CHUNKED + b"0\r\n" + b"X: a\r\n" * MAX_HEADER_LINES + b"\r\n",
        CHUNKED + b"1;" + b"a" * (MAX_HEAD_BYTES * 2),
        CHUNKED + b"1\r\nx\r\n" * 100_000,
        GET.replace(b"\r\n\r\n", b"\r\nUpgrade: websocket\r\nConnection: upgrade\r\nX: ")
        + b"a" * (MAX_HEAD_BYTES * 2),
    ],
    ids=[
        "a long line",
        "many lines",
        "a line without end",
        "a name without end",
        "empty lines",
        "a trailer without end",
        "many trailers",
        "a chunk extension",
        "chunks of a byte",
        "an upgrade",
    ],
)
async def test_too_many_bytes_besides_the_body_are_431(request_bytes: bytes) -> None:
    async with serving() as peer:
        assert_refused(await peer.send(request_bytes), 431, "HEADERS_TOO_LARGE")


async def test_a_target_that_is_too_long_is_414() -> None:
    async with serving() as peer:
        long = b"GET /" + b"a" * 20_000
        for request in (long, long + b" HTTP/1.1\r\n" + HOST + b"\r\n"):
            assert_refused(await peer.send(request), 414, "TARGET_TOO_LONG")


async def test_a_head_within_the_limits_passes() -> None:
    lines = b"".join(b"X-%d: a\r\n" % number for number in range(MAX_HEADER_LINES - 2))
    value = b"a" * (MAX_HEAD_BYTES - len(lines) - 1000)
    async with serving() as peer:
        request = b"GET / HTTP/1.0\r\n" + HOST + lines + b"Y: " + value + b"\r\n\r\n"
        assert (await peer.send(request)).startswith(b"HTTP/1.1 200")


async def test_a_short_body_may_come_in_chunks_of_a_byte() -> None:
    async with serving() as peer:
        chunks = b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n"
        answer = await peer.send(CHUNKED.replace(HOST, HOST + b"Connection: close\r\n") + chunks)
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["body"] == "x" * 10_000


async def test_a_trailer_does_not_say_who_calls() -> None:
    async with serving() as peer:
        request = CHUNKED.replace(HOST, HOST + b"Connection: close\r\n")
        answer = await peer.send(request + b"1\r\nx\r\n0\r\nX-API-Key: stolen\r\n\r\n")
        assert "x-api-key" not in json.loads(answer.partition(b"\r\n\r\n")[2])["headers"]


# Meanings


@pytest.mark.parametrize(
    "request_bytes",
    [
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        POST + b"Content-Length: 2, 2\r\n\r\n{}",
        POST + b"Content-Length: +2\r\n\r\n{}",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: identity\r\n\r\n{}",
        POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        GET.replace(b"\r\n\r\n", b"\r\nX: a\r\n b\r\n\r\n"),
        GET.replace(b"\r\n", b"\n"),
        GET.replace(b"\r\n\r\n", b"\r\nX: a\0b\r\n\r\n"),
        GET.replace(b"\r\n\r\n", b"\r\nX : a\r\n\r\n"),
        GET.replace(b"\r\n\r\n", b"\r\nHost: evil.example\r\n\r\n"),
        GET.replace(b"GET /", b"GET http://evil.example/"),
        GET.replace(b"GET /", b"GET http://localhost@evil.example/"),
        GET.replace(b"GET /", b"GET *"),
        CHUNKED + b"2\n{}\n0\n\n",
        CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
        CHUNKED + b"fffffffffffffffffff\r\n",
        b"GET /\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
async def test_what_can_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_read(
    request_bytes: bytes,
) -> None:
    async with serving() as peer:
        error = assert_refused(await peer.send(request_bytes), 400, "MALFORMED_REQUEST")
        assert error["details"]["reason"]


async def test_a_url_as_target_is_served_when_it_names_our_host() -> None:
    async with serving() as peer:
        request = b"GET http://LOCALHOST HTTP/1.0\r\n" + HOST + b"\r\n"
        assert (await peer.send(request)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("request_line", [b"CONNECT localhost:80", b"OPTIONS *"])
async def test_a_method_that_is_for_no_path_is_405_with_those_that_are(request_line: bytes) -> None:
    async with serving() as peer:
        answer = await peer.send(request_line + b" HTTP/1.1\r\n" + HOST + b"\r\n")
        assert_refused(answer, 405, "METHOD_NOT_ALLOWED")
        assert b"\r\nallow: DELETE, GET, HEAD, POST\r\n" in answer


async def test_a_body_behind_an_offer_of_http2_is_read() -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    last = GET.replace(b"1.1", b"1.0")
    for framed in (
        b"Content-Length: 2\r\n\r\n{}",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ):
        async with serving() as peer:
            answer = await peer.send(POST + offer + framed + last)
            assert answer.count(b"HTTP/1.1 200") == 2
            assert b'"body":"{}"' in answer


async def test_a_websocket_is_answered_over_http_and_the_connection_ends() -> None:
    async with serving() as peer:
        offer = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        answer = await peer.send(GET[:-2] + offer + GET)
        assert answer.count(b"HTTP/1.1") == 1
        assert answer.startswith(b"HTTP/1.1 200")


# Turns


async def test_many_requests_at_once_are_answered_in_order() -> None:
    count = 3000
    requests = b"".join(
        GET.replace(b"\r\n\r\n", b"\r\nN: %d\r\n\r\n" % number) for number in range(count)
    )
    async with serving() as peer:
        answer = await peer.send(requests + GET.replace(b"1.1", b"1.0"))
    assert answer.count(b"HTTP/1.1 200") == count + 1
    places = [answer.find(b'"n":"%d"' % number) for number in range(count)]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize(
    "garbage", [b"garbage\r\n\r\n", CHUNKED + b"garbage\r\n", b"X" * 3_000_000]
)
async def test_a_refusal_never_takes_the_place_of_an_answer_before_it(garbage: bytes) -> None:
    async with serving() as peer:
        reader, writer = await peer.dial()
        writer.write(GET.replace(b"/ ", b"/wait ") + garbage)
        await until(lambda: peer.waiting == 1)
        peer.release.set()
        async with asyncio.timeout(PATIENCE_S):
            answered = b""
            try:
                while chunk := await reader.read(65_536):
                    answered += chunk
            except ConnectionResetError:
                pass  # it was still sending
        writer.close()
        assert answered.startswith(b"HTTP/1.1 200")
        assert answered.count(b"HTTP/1.1") == 1


async def test_requests_before_one_that_is_refused_are_all_answered() -> None:
    async with serving() as peer:
        reader, writer = await peer.dial()
        writer.write(GET.replace(b"/ ", b"/wait ") + GET + b"garbage\r\n\r\n")
        await until(lambda: peer.waiting == 1)
        peer.release.set()
        async with asyncio.timeout(PATIENCE_S):
            answered = await reader.read()
        writer.close()
        assert answered.count(b"HTTP/1.1 200") == answered.count(b"HTTP/1.1") == 2


async def test_a_client_that_leaves_ends_the_request_that_runs_and_those_behind_it() -> None:
    async with serving() as peer:
        _, writer = await peer.dial()
        writer.write(GET.replace(b"/ ", b"/wait ") + GET)
        await until(lambda: peer.waiting == 1)
        writer.transport.abort()
        await until(lambda: not peer.server.server_state.connections)
        peer.release.set()
        await until(lambda: not peer.server.server_state.tasks)


# Time


@pytest.mark.parametrize(
    "begun",
    [GET[:10], GET[:-2], CHUNKED[:-2], POST + b"Content-Length: 9\r\n\r\n12", CHUNKED + b"5\r\n12"],
)
async def test_a_request_that_is_not_finished_in_time_is_408(begun: bytes) -> None:
    async with serving(head_timeout_s=0.1, body_timeout_s=0.1) as peer:
        assert_refused(await peer.send(begun), 408, "REQUEST_TIMEOUT")


@pytest.mark.parametrize("begun", [b"", b"\r\n", GET + b"\r\n"])
async def test_a_connection_that_asks_nothing_is_closed_without_an_answer(begun: bytes) -> None:
    async with serving(head_timeout_s=0.1) as peer:
        answer = await peer.send(begun)
        assert answer.count(b"HTTP/1.1") == begun.count(b"GET")
        assert b"408" not in answer


async def test_a_head_that_drips_in_is_not_given_more_time() -> None:
    async with serving(head_timeout_s=0.5) as peer:
        reader, writer = await peer.dial()

        async def drip() -> None:
            while True:
                writer.write(b"\r\n")
                await writer.drain()
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        writer.close()


async def test_a_body_that_keeps_the_least_rate_has_the_time_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "MIN_BODY_RATE", 1)
    async with serving(body_timeout_s=0.05) as peer:
        reader, writer = await peer.dial()
        writer.write(POST + b"Connection: close\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1000)
        state = peer.server.server_state
        await until(lambda: bool(state.connections))
        (connection,) = state.connections
        assert isinstance(connection, Connection)
        await until(lambda: connection._body_bytes == 1000)
        # As if a minute had gone by: for a thousand bytes there are a thousand seconds.
        connection.check_timeout(connection.loop.time() + 60)
        writer.write(b"x")
        async with asyncio.timeout(PATIENCE_S):
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_the_rest_of_a_body_that_nobody_reads_has_an_end() -> None:
    async with serving(discard_timeout_s=0.1) as peer:
        request = b"POST /unread HTTP/1.1\r\n" + HOST + b"Content-Length: 100000000000\r\n\r\nx"
        answer = await peer.send(request)
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"unread")


async def test_a_client_that_never_reads_its_answer_is_cut_off() -> None:
    async with serving(read_timeout_s=0.2) as peer:
        for version in (b"1.0", b"1.1"):
            _, writer = await peer.dial()
            writer.write(GET.replace(b"/ ", b"/large ").replace(b"1.1", version))
            await until(lambda: bool(peer.server.server_state.connections))
            await until(lambda: not peer.server.server_state.connections)
            writer.close()


# How many


async def test_who_sends_nothing_or_half_a_request_makes_room_for_who_asks() -> None:
    async with serving(ConnectionLimits(total=20)) as peer:
        silent = []
        for number in range(60):
            _, writer = await peer.dial()
            if number % 2:
                writer.write(GET[:20])
            silent.append(writer)
        for _ in range(20):
            assert (await peer.send(GET.replace(b"1.1", b"1.0"))).startswith(b"HTTP/1.1 200")
        assert len(peer.server.server_state.connections) <= 20
        for writer in silent:
            writer.close()


async def test_idle_connections_make_room_first() -> None:
    async with serving(ConnectionLimits(total=2)) as peer:
        beginner, begun = await peer.dial()
        begun.write(GET[:20])
        idle, asked = await peer.dial()
        asked.write(GET)
        async with asyncio.timeout(PATIENCE_S):
            await idle.readuntil(b"}")
            assert (await peer.send(GET.replace(b"1.1", b"1.0"))).startswith(b"HTTP/1.1 200")
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await idle.readexactly(1_000_000)
            begun.write(GET[20:])
            assert (await beginner.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        for writer in (begun, asked):
            writer.close()


async def test_who_is_being_served_is_not_sent_away_for_another() -> None:
    async with serving(ConnectionLimits(total=2)) as peer:
        waiting = [await peer.dial() for _ in range(2)]
        for _, writer in waiting:
            writer.write(GET.replace(b"/ ", b"/wait "))
        await until(lambda: peer.waiting == 2)
        answer = await peer.send(b"")
        assert_refused(answer, 503, "UNAVAILABLE")
        assert b"retry-after: " in answer
        peer.release.set()
        for reader, writer in waiting:
            async with asyncio.timeout(PATIENCE_S):
                assert (await reader.readuntil(b"waited")).startswith(b"HTTP/1.1 200")
            writer.close()
