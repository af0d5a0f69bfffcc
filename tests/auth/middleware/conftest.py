"""Small apps behind a middleware: in process, and under a real server."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ERROR_SHAPE = {"success", "error", "code", "details", "suggestion", "retryable"}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what it got."""
    request = Request(scope, receive)
    body = await request.body()
    answer = {
        "path": scope["path"],
        "raw_path": scope["raw_path"].decode(),
        "headers": dict(request.headers),
        "body": body.decode(),
    }
    await JSONResponse(answer)(scope, receive, send)


class Recorder:
    """An app that streams until its client hangs up, and notes that it did."""

    def __init__(self) -> None:
        self.has_ended = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()

        async def ticks() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"tick\n"
                    await asyncio.sleep(0.005)
            finally:
                self.has_ended.set()

        await StreamingResponse(ticks())(scope, receive, send)


def client_of(app: ASGIApp, **headers: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=("192.0.2.7", 50_000))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers)


def assert_error(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of a refusal in the one error shape."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    body: dict[str, Any] = response.json()
    assert set(body) == ERROR_SHAPE
    assert (body["success"], body["code"]) == (False, code)
    return body


@asynccontextmanager
async def listening(app: ASGIApp, **options: Any) -> AsyncIterator[int]:
    """The app under uvicorn on a free port of 127.0.0.1."""
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", **options)
    runner = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(runner.serve(sockets=[listener]))
        while not runner.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        try:
            yield listener.getsockname()[1]
        finally:
            runner.should_exit = True
            await task


@asynccontextmanager
async def dial(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection, for what no well-behaved client sends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one HTTP answer with a length."""
    async with asyncio.timeout(20):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers, body


class Script:
    """A request's body as scripted messages, after which the client is gone."""

    def __init__(self, *messages: Message) -> None:
        self.waiting = list(messages)

    async def __call__(self) -> Message:
        return self.waiting.pop(0) if self.waiting else {"type": "http.disconnect"}


def part(body: bytes, *, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def make_scope(method: str = "POST", path: str = "/", **headers: str) -> Scope:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": named,
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("192.0.2.7", 50_000),
    }


class Answers:
    """Collects what an app sends."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int | None:
        return self.messages[0]["status"] if self.messages else None

    @property
    def body(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.messages[1]["body"])
        return content
