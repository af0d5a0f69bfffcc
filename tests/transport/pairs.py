"""One server behind two applications, with the direct lane and without, to compare their answers."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.types import ASGIApp, Message, Send

from shared_context_server.server import make_app, make_mcp, open_server
from shared_context_server.settings import Settings
from shared_context_server.transport.lane import DirectLane
from shared_context_server.transport.request import McpRequest

KEY, SECRET = "key-" + "k" * 40, "secret-" + "s" * 40
URL = "http://127.0.0.1:23456"
GIVEN_SESSION_ID = "<mcp-session-id>"
SESSION_ID_HEADER = "mcp-session-id"
# An id is random; a stream of the SDK's has no length, and says of its connection what HTTP/1.1 says anyway.
NOT_COMPARED = frozenset({SESSION_ID_HEADER, "x-request-id", "content-length", "connection"})
MAX_SHOWN = 10  # differences
ANSWER_LIMIT_S = 30
_VOLATILE = re.compile(
    r'(\\?"(?:message_id|seq|version|next_after_seq|last_seq|count|total_count|epoch_s)\\?":)[\d.]+'
    r"|\d{4}-\d\d-\d\dT[\d:.]+Z"
)


class CountingLane(DirectLane):
    """Counts what it answers itself, so that a lane that answers nothing is not taken for equal."""

    answered = 0

    async def answer(self, request: McpRequest, send: Send) -> bool:
        is_answered = await super().answer(request, send)
        self.answered += is_answered
        return is_answered


@dataclass(frozen=True)
class Request:
    """One request, in bytes: no header is added to these but Host."""

    body: bytes
    headers: Sequence[tuple[str, str]] = ()
    method: str = "POST"
    path: str = "/mcp"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: tuple[tuple[str, str], ...]
    text: str

    def get(self, name: str) -> str | None:
        return dict(self.headers).get(name)


async def ask(app: ASGIApp, request: Request) -> Answer:
    """The application's answer; what is a subscription is left after its first event."""
    path, _, query = request.path.partition("?")
    raw = [  # names in lower case, as ASGI has them
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers
    ]
    if not any(name == b"host" for name, _ in raw):
        raw.append((b"host", b"127.0.0.1:23456"))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": raw,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 23456),
    }
    unread = [{"type": "http.request", "body": request.body, "more_body": False}]
    gone = asyncio.Event()
    is_endless = b'"subscriptions/listen"' in request.body
    start: Message = {}
    parts = []

    async def receive() -> Message:
        if unread:
            return unread.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        elif not gone.is_set():
            parts.append(message.get("body", b""))
            if is_endless and parts[-1]:
                gone.set()

    async with asyncio.timeout(ANSWER_LIMIT_S):
        await app(scope, receive, send)
    headers = tuple((name.decode(), value.decode("latin-1")) for name, value in start["headers"])
    return Answer(start["status"], headers, b"".join(parts).decode())


@dataclass
class Pair:
    """Two applications of one server, with the lane and without."""

    direct: ASGIApp
    through_sdk: ASGIApp
    lane: CountingLane
    session_id: str = ""
    compared: int = 0
    differences: list[str] = field(default_factory=list)
    _given_ids: list[str] = field(default_factory=lambda: ["none yet", "none yet"])

    async def compare(self, request: Request) -> bool:
        """Whether the lane itself answered. Placeholders stand for what a server gave out: the session,
        and the Mcp-Session-Id of the last initialize, each application's own."""
        before = self.lane.answered
        body = request.body.replace(b"<session>", self.session_id.encode())
        answers = []
        for number, app in enumerate((self.direct, self.through_sdk)):
            headers = [
                (
                    name,
                    value.replace("<session>", self.session_id)
                    .replace("<key>", KEY)
                    .replace(GIVEN_SESSION_ID, self._given_ids[number]),
                )
                for name, value in request.headers
            ]
            answer = await ask(app, Request(body, headers, request.method, request.path))
            self._given_ids[number] = answer.get(SESSION_ID_HEADER) or self._given_ids[number]
            answers.append(describe(answer))
        self.compared += 1
        if answers[0] != answers[1]:
            asked = [f"{request.method} {request.path}", str(request.headers), repr(body)]
            self.differences.append("\n  ".join([*asked, *map(str, answers)]))
        return self.lane.answered > before


def describe(answer: Answer) -> tuple[Any, ...]:
    """What has to be equal: status, headers, and the messages."""
    if (answer.get("content-type") or "").startswith("text/event-stream"):
        lines = re.split(r"[\r\n]+", answer.text)
        data = [line[5:].strip() for line in lines if line.startswith("data:")]
        messages = [json.loads(line) for line in data if line]
    else:
        is_json = (answer.get("content-type") or "").startswith("application/json")
        messages = [json.loads(answer.text) if is_json and answer.text else answer.text]
    kept = sorted(header for header in answer.headers if header[0] not in NOT_COMPARED)
    has_session = answer.get(SESSION_ID_HEADER) is not None
    plain = _VOLATILE.sub(r"\1#", json.dumps(messages, sort_keys=True, separators=(",", ":")))
    return answer.status, kept, has_session, plain


@asynccontextmanager
async def open_pair(directory: Path) -> AsyncIterator[Pair]:
    """Both, for a with block that ends with an AssertionError if an answer differed."""
    settings_ = Settings(
        data_dir=directory,
        api_key=KEY,
        jwt_secret_key=SECRET,
        rate_limit="off",
        failed_auth_limit="off",
        http_port=23456,
    )
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_server(settings_))
        apps = []
        for has_lane in (True, False):
            mcp = make_mcp(server.dispatcher)
            lane = CountingLane(server.dispatcher, mcp._mcp_server.server_info_stamp)
            apps.append(
                await make_app(
                    stack, mcp, server.dispatcher, server.metrics, lane if has_lane else None
                )
            )
            if has_lane:
                direct_lane = lane
        pair = Pair(*apps, direct_lane)
        caller = {"X-API-Key": KEY, "X-Agent-ID": "alice"}
        transport = httpx.ASGITransport(apps[1])
        async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
            made = await client.post(
                "/mcp/tool/create_session", json={"purpose": "compare"}, headers=caller
            )
        pair.session_id = made.json()["session_id"]
        yield pair
    shown = "\n\n".join(pair.differences[:MAX_SHOWN])
    assert not pair.differences, f"{len(pair.differences)} of {pair.compared} differ:\n\n{shown}"
