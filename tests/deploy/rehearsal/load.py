"""Agents that write and listen through one address, and what each of them saw."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from fastmcp.exceptions import ToolError

from shared_context_client.event_stream import EventStreamParser

AGENTS = 20
SESSIONS = 4
PAUSE_S = 0.2  # between the messages of one agent
RETRY_PAUSE_S = 0.1  # shorter than Retry-After asks for, to see when a pause ends
WAIT_S = 20
CALL_TIMEOUT_S = 40.0
PAGE = 1000


class _FailedError(Exception):
    """A call got no answer, or one that says to try again; the message is what kind."""


class Caller(Protocol):
    """One agent's way to the server."""

    protocol: str

    async def call_once(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]: ...

    async def close(self) -> None: ...


class RestCaller:
    protocol = "REST"

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._client = httpx.AsyncClient(base_url=url, headers=headers, timeout=CALL_TIMEOUT_S)

    async def call_once(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = await self._client.post(f"/mcp/tool/{tool}", json=arguments)
        except httpx.TransportError as exc:
            raise _FailedError(type(exc).__name__) from exc
        body: dict[str, Any] = answer.json()
        if answer.status_code != 200:
            raise _FailedError(f"{answer.status_code} {body['code']}")
        return body

    async def close(self) -> None:
        await self._client.aclose()


class McpCaller:
    """FastMCP's client, opened anew after a failure, as one that has lost its server is."""

    protocol = "MCP"

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._transport = (f"{url}/mcp", headers)
        self._client: Client[Any] | None = None

    async def call_once(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            if self._client is None:
                url, headers = self._transport
                client = Client(
                    StreamableHttpTransport(url, headers=headers), timeout=CALL_TIMEOUT_S
                )
                await client.__aenter__()
                self._client = client
            answer = await self._client.call_tool(tool, arguments)
        except ToolError as exc:
            raise _FailedError(find_code(str(exc))) from exc
        except Exception as exc:  # whatever the transport raises
            await self.close()
            raise _FailedError(f"MCP {type(exc).__name__}") from exc
        body: dict[str, Any] = answer.structured_content
        return body

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            try:
                await client.__aexit__(None, None, None)
            except Exception:  # noqa: BLE001  # it is given up
                return


def find_code(text: str) -> str:
    """Of a tool's error, which is the same JSON as REST's."""
    found = re.search(r'"code":\s*"([A-Z_]+)"', text)
    return found[1] if found else text[:60]


@dataclass
class Sent:
    session_id: str
    seq: int
    acknowledged_at: float


@dataclass
class Record:
    """What all agents saw. Times are of time.monotonic()."""

    sent: dict[str, Sent] = field(default_factory=dict)  # by content
    calls: Counter[str] = field(default_factory=Counter)  # by protocol
    retried: Counter[str] = field(default_factory=Counter)  # calls that took more than one try
    refusals: Counter[str] = field(default_factory=Counter)  # by kind
    # What kind of call, when it began, and how long it took with its retries, in s.
    took: list[tuple[str, float, float]] = field(default_factory=list)
    rolled: list[float] = field(
        default_factory=list
    )  # when the servers began to be replaced, and ended

    def longest_s(self, kind: str, *, is_rolling: bool) -> float:
        """Of the calls that were under way while servers were replaced, or of the others."""
        began, ended = self.rolled
        return max(
            (
                taken
                for each, at, taken in self.took
                if each == kind and (at < ended and at + taken > began) is is_rolling
            ),
            default=0.0,
        )


async def call(
    caller: Caller, record: Record, kind: str, tool: str, **arguments: Any
) -> dict[str, Any]:
    """The answer, however often it has to be asked for."""
    began = time.monotonic()
    for attempt in itertools.count(1):
        try:
            answer = await caller.call_once(tool, arguments)
        except _FailedError as exc:
            record.refusals[f"{caller.protocol}: {exc}"] += 1
            await asyncio.sleep(RETRY_PAUSE_S)
            continue
        name = f"{caller.protocol} {kind}"
        record.calls[name] += 1
        record.retried[name] += attempt > 1
        record.took.append((name, began, time.monotonic() - began))
        return answer
    raise AssertionError("it never gives up")


@dataclass
class Writer:
    """Adds one message after the other, each with an idempotency key."""

    caller: Caller
    record: Record
    session_id: str
    name: str
    is_over: bool = False

    async def connect(self) -> None:
        await call(self.caller, Record(), "setup", "get_session", session_id=self.session_id)

    async def run(self) -> None:
        for number in itertools.count():
            if self.is_over:
                return
            content = f"{self.name}/{number}"
            added = await call(
                self.caller,
                self.record,
                "writes",
                "add_message",
                session_id=self.session_id,
                content=content,
                idempotency_key=content,
            )
            self.record.sent[content] = Sent(self.session_id, added["seq"], time.monotonic())
            await asyncio.sleep(PAUSE_S)


@dataclass
class Listener:
    """Sees the messages of one session; `resumed` counts how often it had to come back."""

    record: Record
    session_id: str
    kind: str
    seen: list[tuple[int, str, float]] = field(default_factory=list)
    resumed: int = 0
    longest_away_s: float = 0.0

    async def run(self) -> None:
        """Listen until it is cancelled."""
        raise NotImplementedError

    def latest_s(self) -> float:
        """The longest time from a message's acknowledgement until it was here."""
        lags = [
            at - self.record.sent[content].acknowledged_at
            for _, content, at in self.seen
            if content in self.record.sent
        ]
        return max(lags, default=0.0)


@dataclass
class Waiter(Listener):
    """Waits for messages by calls, after a cursor."""

    caller: Caller = field(kw_only=True)

    async def run(self) -> None:
        after_seq = 0
        while True:
            answer = await call(
                self.caller,
                self.record,
                "waits",
                "wait_for_messages",
                session_id=self.session_id,
                after_seq=after_seq,
                include_own=True,  # the agent listens and writes
                timeout_seconds=WAIT_S,
                limit=PAGE,
            )
            now = time.monotonic()
            self.seen += [(each["seq"], each["content"], now) for each in answer["messages"]]
            after_seq = answer["next_after_seq"]


@dataclass
class Stream(Listener):
    """Reads GET /events, and comes back with Last-Event-ID when it ends."""

    client: httpx.AsyncClient = field(kw_only=True)

    async def run(self) -> None:
        last_id, left_at = "0", None
        while True:
            try:
                async with self.client.stream(
                    "GET",
                    "/events",
                    params={"session_id": self.session_id},
                    headers={"Last-Event-ID": last_id},
                ) as answer:
                    if answer.status_code != 200:
                        self.record.refusals[f"/events: {answer.status_code}"] += 1
                        await asyncio.sleep(RETRY_PAUSE_S)
                        left_at = left_at or time.monotonic()
                        continue
                    if left_at is not None:
                        self.resumed += 1
                        self.longest_away_s = max(self.longest_away_s, time.monotonic() - left_at)
                        left_at = None
                    parser = EventStreamParser()
                    async for chunk in answer.aiter_bytes():
                        for event in parser.feed(chunk):
                            last_id = self._take(event.type, event.data, event.id) or last_id
            except httpx.TransportError as exc:
                self.record.refusals[f"/events: {type(exc).__name__}"] += 1
                await asyncio.sleep(RETRY_PAUSE_S)
            left_at = left_at or time.monotonic()

    def _take(self, kind: str, data: str, event_id: str) -> str:
        if kind == "message":
            message = json.loads(data)
            self.seen.append((message["seq"], message["content"], time.monotonic()))
        return event_id


@dataclass
class Load:
    record: Record
    sessions: list[str]
    writers: list[Writer]
    listeners: list[Listener]
    url: str
    headers: dict[str, str]

    async def read_all(self) -> dict[str, list[tuple[int, str]]]:
        """Each session's messages, as the server has them."""
        reader = RestCaller(self.url, self.headers)
        kept: dict[str, list[tuple[int, str]]] = {}
        for session_id in self.sessions:
            kept[session_id], after_seq, has_more = [], 0, True
            while has_more:
                page = await call(
                    reader,
                    Record(),
                    "reads",
                    "get_messages",
                    session_id=session_id,
                    after_seq=after_seq,
                    limit=PAGE,
                )
                kept[session_id] += [(each["seq"], each["content"]) for each in page["messages"]]
                has_more, after_seq = page["has_more"], page["next_after_seq"]
        await reader.close()
        return kept


@asynccontextmanager
async def open_load(url: str, api_key: str) -> AsyncIterator[Load]:
    """Twenty agents, half by REST and half by MCP; half listen by a stream and half by calls."""
    record = Record()
    async with AsyncExitStack() as stack:

        def headers(name: str) -> dict[str, str]:
            return {"X-API-Key": api_key, "X-Agent-ID": name}

        def open_caller(number: int, name: str) -> Caller:
            caller: Caller = (RestCaller if number % 2 else McpCaller)(url, headers(name))
            stack.push_async_callback(caller.close)
            return caller

        creator = RestCaller(url, headers("creator"))
        stack.push_async_callback(creator.close)
        sessions = [
            (
                await call(
                    creator, Record(), "setup", "create_session", purpose=f"rehearsal {number}"
                )
            )["session_id"]
            for number in range(SESSIONS)
        ]
        writers: list[Writer] = []
        listeners: list[Listener] = []
        for number in range(AGENTS):
            name, session_id = f"agent-{number}", sessions[number % SESSIONS]
            writers.append(Writer(open_caller(number, name), record, session_id, name))
            if number < AGENTS // 2:
                client = httpx.AsyncClient(
                    base_url=url, headers=headers(name), timeout=httpx.Timeout(CALL_TIMEOUT_S)
                )
                stack.push_async_callback(client.aclose)
                listeners.append(Stream(record, session_id, "streams", client=client))
            else:
                caller = open_caller(number, name)
                listeners.append(
                    Waiter(record, session_id, f"{caller.protocol} waits", caller=caller)
                )
        for writer in writers:
            await writer.connect()
        yield Load(record, sessions, writers, listeners, url, headers("creator"))
