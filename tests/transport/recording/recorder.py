"""Keeps the requests that clients send to an ASGI application, without what differs between two runs."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1:23456"
KEY = "<key>"
SESSION = "<session>"
SESSION_ID_HEADER = "mcp-session-id"
GIVEN_SESSION_ID = "<mcp-session-id>"
NOT_KEPT = frozenset({"content-length"})
# What is random in the requests of one client or another.
_RANDOM = (
    (
        re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        "00000000-0000-4000-8000-000000000000",
    ),
    (re.compile(r"\b00-[0-9a-f]{32}-[0-9a-f]{16}-"), f"00-{'1' * 32}-{'2' * 16}-"),
)
_OWN_ADDRESS = re.compile(r"(127\.0\.0\.1|localhost):\d+")


@dataclass(frozen=True)
class Recorded:
    """A request as it stands in the corpus: bodies are text, header names in lower case."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: str

    def to_line(self) -> str:
        return json.dumps(vars(self), ensure_ascii=False)


def read_corpus(file: Path) -> list[Recorded]:
    """The requests in a file of the corpus, in the order in which they were sent."""
    requests = []
    for line in file.read_text(encoding="utf-8").splitlines():
        stored = json.loads(line)
        headers = tuple((name, value) for name, value in stored.pop("headers"))
        requests.append(Recorded(headers=headers, **stored))
    return requests


@dataclass
class Recorder:
    """The application, and what was sent to it. `secrets` are pairs of a text and what replaces it."""

    app: ASGIApp
    secrets: Sequence[tuple[str, str]]
    _sent: list[tuple[Scope, bytearray]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = bytearray()
        self._sent.append((scope, body))

        async def keep() -> Message:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        await self.app(scope, keep, send)

    def take(self) -> list[Recorded]:
        """What was sent since the last time."""
        taken = [self._describe(scope, bytes(body)) for scope, body in self._sent]
        self._sent.clear()
        return taken

    def _describe(self, scope: Scope, body: bytes) -> Recorded:
        headers = []
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1"), self._clean(raw_value.decode("latin-1"))
            if name == SESSION_ID_HEADER:
                value = GIVEN_SESSION_ID
            if name not in NOT_KEPT:
                headers.append((name, value))
        query = scope["query_string"].decode()
        path = scope["path"] + (f"?{query}" if query else "")
        return Recorded(
            scope["method"], self._clean(path), tuple(headers), self._clean(body.decode())
        )

    def _clean(self, text: str) -> str:
        for secret, placeholder in self.secrets:
            text = text.replace(secret, placeholder)
        for pattern, replacement in _RANDOM:
            text = pattern.sub(replacement, text)
        return _OWN_ADDRESS.sub(HOST, text)


@asynccontextmanager
async def serve(app: ASGIApp) -> AsyncIterator[str]:
    """The application on a free port of 127.0.0.1."""
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none")
    runner = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(runner.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            runner.should_exit = True
            await task
