"""The limit on request bodies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from shared_context_server.auth.middleware import BodyLimitMiddleware, body_limit
from tests.auth.middleware.conftest import (
    Answers,
    Recorder,
    Script,
    assert_error,
    client_of,
    dial,
    echo,
    listening,
    make_scope,
    part,
    read_answer,
)

LIMIT = 1000
APP = BodyLimitMiddleware(echo, LIMIT)


async def chunked(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize("size", [0, 1, LIMIT])
async def test_a_body_within_the_limit_passes(size: int) -> None:
    async with client_of(APP) as client:
        assert (await client.post("/", content=b"x" * size)).json()["body"] == "x" * size
        whole = chunked(b"x" * (size // 2), b"x" * (size - size // 2))
        assert (await client.post("/", content=whole)).json()["body"] == "x" * size


async def test_a_body_over_the_limit_is_413_with_the_limit() -> None:
    async with client_of(APP) as client:
        for content in (b"x" * (LIMIT + 1), chunked(b"x" * LIMIT, b"x")):
            body = assert_error(await client.post("/", content=content), 413, "CONTENT_TOO_LARGE")
            assert body["details"] == {"limit_bytes": LIMIT}


async def test_a_body_of_known_length_reaches_the_app_unchanged() -> None:
    script = Script(part(b"ab", more=True), part(b"c", more=False))
    seen = []

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        seen.extend([await receive() for _ in range(3)])

    limited = BodyLimitMiddleware(app, LIMIT)
    await limited(make_scope(content_length="3"), script, Answers())
    expected = [part(b"ab", more=True), part(b"c", more=False), {"type": "http.disconnect"}]
    assert seen == expected


async def test_the_disconnect_arrives_after_a_chunked_body() -> None:
    seen = []

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        seen.extend([await receive() for _ in range(2)])

    limited = BodyLimitMiddleware(app, LIMIT)
    script = Script(part(b"ab", more=True), part(b"c", more=False))
    await limited(make_scope(transfer_encoding="chunked"), script, Answers())
    assert seen == [part(b"abc", more=False), {"type": "http.disconnect"}]


@pytest.mark.parametrize("headers", [{"transfer_encoding": "chunked"}, {"content_length": "9999"}])
async def test_a_client_that_leaves_while_it_sends_is_not_answered(headers: dict[str, str]) -> None:
    answers = Answers()
    await APP(make_scope(**headers), Script(part(b"x", more=True)), answers)
    assert answers.messages == []


async def test_draining_ends_at_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limit, "DRAIN_MAX_BYTES", 3000)
    script = Script(*[part(b"x" * 1000, more=True)] * 10)
    answers = Answers()
    await APP(make_scope(content_length="9999"), script, answers)
    assert answers.status == 413
    assert (b"connection", b"close") in answers.messages[0]["headers"]
    assert len(script.waiting) == 6

    monkeypatch.setattr(body_limit, "DRAIN_MAX_S", 0.01)
    answers = Answers()
    await APP(make_scope(content_length="9999"), asyncio.Event().wait, answers)  # type: ignore[arg-type]
    assert answers.status == 413


async def test_lengths_that_are_none_are_left_to_the_server() -> None:
    for length in ("", "-1", "ten"):
        answers = Answers()
        await APP(make_scope(content_length=length), Script(part(b"x", more=False)), answers)
        assert answers.status == 200
    answers = Answers()
    await APP(make_scope(content_length="9" * 5000), Script(), answers)
    assert answers.messages == []


async def send_too_much(writer: asyncio.StreamWriter, connection: str) -> None:
    size = 8_000_000
    head = (
        f"POST / HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\nContent-Length: {size}\r\n\r\n"
    )
    writer.write(head.encode())
    for _ in range(80):
        writer.write(b"x" * (size // 80))
        await writer.drain()


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("connection", ["keep-alive", "close"])
async def test_a_client_that_sends_too_much_sees_the_answer(http: str, connection: str) -> None:
    async with listening(APP, http=http) as port, dial(port) as (reader, writer):
        await send_too_much(writer, connection)
        status, _, body = await read_answer(reader)
        assert (status, json.loads(body)["code"]) == (413, "CONTENT_TOO_LARGE")


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_a_client_that_sent_too_much_may_go_on_on_its_connection(http: str) -> None:
    async with listening(APP, http=http) as port, dial(port) as (reader, writer):
        await send_too_much(writer, "keep-alive")
        await read_answer(reader)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok")
        status, _, body = await read_answer(reader)
        assert (status, json.loads(body)["body"]) == (200, "ok")


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_a_client_that_sends_endless_chunks_sees_the_answer(http: str) -> None:
    async with listening(APP, http=http) as port:
        url = f"http://127.0.0.1:{port}/"
        async with httpx.AsyncClient() as client:
            response = await client.post(url, content=chunked(*[b"x" * 100_000] * 40))
            assert_error(response, 413, "CONTENT_TOO_LARGE")
            assert (await client.post(url, content=chunked(b"o", b"k"))).json()["body"] == "ok"


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_a_client_that_asks_first_is_told_before_it_sends(http: str) -> None:
    async with listening(APP, http=http) as port, dial(port) as (reader, writer):
        writer.write(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\nExpect: 100-continue\r\n\r\n"
        )
        status, headers, _ = await read_answer(reader)
        assert (status, headers["connection"]) == (413, "close")


@pytest.mark.parametrize(
    "framing",
    ["Content-Length: 2\r\n\r\nok", "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"],
)
async def test_an_app_that_streams_hears_that_its_client_is_gone(framing: str) -> None:
    app = Recorder()
    async with listening(BodyLimitMiddleware(app, LIMIT)) as port:
        async with dial(port) as (reader, writer):
            writer.write(f"POST / HTTP/1.1\r\nHost: x\r\n{framing}".encode())
            async with asyncio.timeout(20):
                assert b"tick" in await reader.readuntil(b"tick")
        async with asyncio.timeout(20):
            await app.has_ended.wait()
