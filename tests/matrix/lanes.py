"""The ways to call a server in this process: REST, batches and both eras of MCP, without a socket."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message

from tests.transport.generated import BOTH, ENVELOPE, MODERN

ANSWER_LIMIT_S = 30
LEGACY = "2025-06-18"
Headers = Mapping[str, str]


@dataclass(frozen=True)
class Response:
    """A whole answer, or of a stream what came until the client left."""

    status: int
    headers: dict[str, str]
    text: str

    def json(self) -> Any:
        """The JSON of the answer; of an event stream the last event's."""
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            data = [
                line[5:] for line in re.split(r"[\r\n]+", self.text) if line.startswith("data:")
            ]
            return json.loads(data[-1])
        return json.loads(self.text)


async def ask(
    app: ASGIApp,
    method: str,
    path: str,
    headers: Headers,
    body: Any = None,
    *,
    leaves_at_first: bool = False,
    leaves_at_start: bool = False,
) -> Response:
    """Send a request. `leaves_at_first`: hang up once something of a successful answer has come.
    `leaves_at_start`: hang up at its status."""
    content = b"" if body is None else json.dumps(body).encode()
    path, _, query = path.partition("?")
    named = {"host": "127.0.0.1:23456", "content-type": "application/json", **headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in named.items()],
        "client": ("192.0.2.7", 50000),
        "server": ("127.0.0.1", 23456),
    }
    unread = [{"type": "http.request", "body": content, "more_body": False}]
    gone = asyncio.Event()
    start: Message = {}
    parts: list[bytes] = []

    async def receive() -> Message:
        if unread:
            return unread.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            if leaves_at_start and start["status"] < 400:
                gone.set()
            return
        parts.append(message.get("body", b""))
        if leaves_at_first and start["status"] < 400 and parts[-1]:
            gone.set()

    async with asyncio.timeout(ANSWER_LIMIT_S):
        await app(scope, receive, send)
    answered = {name.decode().lower(): value.decode("latin-1") for name, value in start["headers"]}
    return Response(start["status"], answered, b"".join(parts).decode())


@dataclass(frozen=True)
class Answer:
    """A tool's answer, or the refusal of the request. `code` is '' for a success."""

    body: dict[str, Any]

    @property
    def code(self) -> str:
        return "" if self.body.get("success") else str(self.body.get("code"))

    @property
    def text(self) -> str:
        return json.dumps(self.body)


@dataclass(frozen=True)
class Lane:
    """One way to call tools."""

    name: str
    app: ASGIApp

    async def call(self, headers: Headers, tool: str, arguments: dict[str, Any]) -> Answer:
        if self.name == "rest":
            return Answer(
                (await ask(self.app, "POST", f"/mcp/tool/{tool}", headers, arguments)).json()
            )
        if self.name == "batch":
            calls = {"calls": [{"tool": tool, "arguments": arguments}]}
            told = (await ask(self.app, "POST", "/mcp/batch", headers, calls)).json()
            return Answer(told["results"][0]["result"] if "results" in told else told)
        told = await self.request(headers, "tools/call", name=tool, arguments=arguments)
        if "error" in told:
            return Answer(told["error"]["data"])
        return Answer(told["result"]["structuredContent"])

    async def request(
        self, headers: Headers, method: str, *, leaves_at_first: bool = False, **params: Any
    ) -> Any:
        """The answer to a JSON-RPC request."""
        is_modern = self.name == "mcp-2026-07-28"
        version = MODERN if is_modern else LEGACY
        sent = {"accept": BOTH, "mcp-protocol-version": version, **headers}
        if is_modern:
            params["_meta"] = ENVELOPE
            sent["mcp-method"] = method
            name = params.get("name", params.get("uri"))
            if name is not None:
                sent["mcp-name"] = name
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = await ask(self.app, "POST", "/mcp", sent, body, leaves_at_first=leaves_at_first)
        told = answer.json()
        return told if "jsonrpc" in told else {"error": {"data": told}}


LANES = ("rest", "batch", "mcp-2026-07-28", "mcp-2025-06-18")
