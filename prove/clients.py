"""The ways in which agents call a server, over HTTP and both eras of MCP; each call is recorded."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from prove.history import Call, History, JsonObject, Outcome

MODERN, HANDSHAKE = "2026-07-28", "2025-06-18"
REST = "REST"
WAYS = (REST, f"MCP {MODERN}", f"MCP {HANDSHAKE}")

TIMEOUT_S = 15.0
RETRY_S = 0.1
LONGEST_RETRY_S = 1.0
WANDERING = 0.02
"""How often an agent goes to another server by itself, so that all are used after a fault too."""

PATIENCE_S = 60.0
"""How long an agent repeats a call. Longer than any fault lasts."""

# Answers after which the call may still have been done.
_OPEN = frozenset({"UNAVAILABLE", "STORAGE_FULL", "RATE_LIMITED", "REQUEST_TIMEOUT"})
_PREFIX = "io.modelcontextprotocol/"
_CLIENT = {
    f"{_PREFIX}protocolVersion": MODERN,
    f"{_PREFIX}clientInfo": {"name": "prove", "version": "1"},
    f"{_PREFIX}clientCapabilities": {},
}


@dataclass
class Run:
    """What all agents of a run share. `urls`: where the servers are reached. `database_url`:
    of PostgreSQL, to disturb it. `is_over` ends the traffic, `is_final` begins the last look at everything."""

    urls: Sequence[str]
    api_key: str
    admin_api_key: str
    database_url: str = ""
    history: History = field(default_factory=History)
    is_over: bool = False
    is_final: bool = False
    numbers: Any = field(default_factory=itertools.count)

    def record(self, agent: str, tool: str, arguments: JsonObject, **more: Any) -> Call:
        now = time.monotonic()
        call = Call(next(self.numbers), agent, tool, arguments, now, is_final=self.is_final, **more)
        self.history.calls.append(call)
        return call


class Agent:
    """One agent: its connections, and the choices that the seed makes for it."""

    def __init__(
        self,
        run: Run,
        name: str,
        *,
        agent_type: str = "generic",
        seed: object = 0,
        home: int = 0,
        ways: Sequence[str] = WAYS,
        is_admin: bool = False,
    ) -> None:
        self.run = run
        self.name = name
        self.chooser = random.Random(f"{seed} {name}")
        self._ways = ways
        self._place = home % len(run.urls)
        self._keys = itertools.count()
        self.headers = {
            "X-API-Key": run.admin_api_key if is_admin else run.api_key,
            "X-Agent-ID": name,
            "X-Agent-Type": agent_type,
        }
        run.history.agents[name] = agent_type
        if is_admin:
            run.history.admins.add(name)
        self._http = httpx.AsyncClient(
            headers=self.headers,
            timeout=TIMEOUT_S,
            limits=httpx.Limits(max_connections=8, max_keepalive_connections=4),
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    @property
    def url(self) -> str:
        return self.run.urls[self._place]

    def move(self) -> None:
        """Go to the next server, as a client does whose server does not answer."""
        self._place = (self._place + 1) % len(self.run.urls)

    def new_key(self) -> str:
        """Return an idempotency key that this agent has not used."""
        return f"{self.name}-{next(self._keys)}"

    async def call(
        self, tool: str, *, timeout_s: float = TIMEOUT_S, way: str | None = None, **arguments: Any
    ) -> Call:
        """Call once. Never raises: the outcome says what became of it."""
        way = way or self.chooser.choice(self._ways)
        if self.chooser.random() < WANDERING:
            self.move()
        url = self.url
        call = self.run.record(self.name, tool, arguments, way=way, server=url)
        path, body, headers = _request(way, tool, arguments)
        try:
            answer = await self._http.post(
                f"{url}{path}", json=body, headers=headers, timeout=timeout_s
            )
            self._settle(call, way, answer)
        except (httpx.TransportError, ValueError, KeyError) as exc:
            call.code = type(exc).__name__
        if call.outcome is Outcome.UNKNOWN:
            self.move()
        return call

    def _settle(self, call: Call, way: str, answer: httpx.Response) -> None:
        body = _read_answer(way, answer)
        call.ended_at = time.monotonic()
        call.code = body.get("code", "")
        if body.get("success"):
            call.outcome, call.answer = Outcome.OK, body
        elif call.code not in _OPEN and not body.get("retryable"):
            call.outcome, call.answer = Outcome.REFUSED, body
        elif call.code == "INTERNAL_ERROR":
            call.outcome = Outcome.REFUSED  # nothing explains it, so that it is reported
        if call.outcome is Outcome.UNKNOWN:
            call.ended_at = float("inf")

    async def insist(self, tool: str, **arguments: Any) -> Call:
        """Repeat the call until there is an answer to it, or for long enough."""
        deadline, pause_s = time.monotonic() + PATIENCE_S, RETRY_S
        while True:
            call = await self.call(tool, **arguments)
            if call.outcome is not Outcome.UNKNOWN or time.monotonic() > deadline:
                return call
            await asyncio.sleep(pause_s * self.chooser.uniform(0.5, 1))
            pause_s = min(2 * pause_s, LONGEST_RETRY_S)

    async def insist_twice_at_once(self, tool: str, **arguments: Any) -> Call:
        """Send the call twice at the same time, as a client does that gave up too early."""
        first, second = await asyncio.gather(
            self.call(tool, **arguments), self.call(tool, **arguments)
        )
        if first.outcome is Outcome.UNKNOWN and second.outcome is Outcome.UNKNOWN:
            return await self.insist(tool, **arguments)
        return first if first.is_ok else second

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, *, idle_s: float, **options: Any
    ) -> AsyncIterator[httpx.Response]:
        """Open a response that is read as it comes; silent for `idle_s`, it counts as broken."""
        timeout = httpx.Timeout(TIMEOUT_S, read=idle_s)
        async with self._http.stream(
            method, f"{self.url}{path}", timeout=timeout, **options
        ) as response:
            yield response


def _request(way: str, tool: str, arguments: JsonObject) -> tuple[str, JsonObject, dict[str, str]]:
    if way == REST:
        return f"/mcp/tool/{tool}", arguments, {}
    version = way.removeprefix("MCP ")
    headers, body = mcp_request("tools/call", {"name": tool, "arguments": arguments}, version)
    return "/mcp", body, headers


def mcp_request(method: str, params: JsonObject, version: str) -> tuple[dict[str, str], JsonObject]:
    """Return the headers and the body of a request of this version."""
    headers = {
        "MCP-Protocol-Version": version,
        "Accept": "application/json, text/event-stream",
    }
    if version == MODERN:
        params = {**params, "_meta": _CLIENT}
        headers["Mcp-Method"] = method
        if "name" in params:
            headers["Mcp-Name"] = params["name"]
    return headers, {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def _read_answer(way: str, answer: httpx.Response) -> JsonObject:
    """Return the tool's own answer. Raises ValueError or KeyError for what is none."""
    text = answer.text
    if way != REST and answer.headers.get("content-type", "").startswith("text/event-stream"):
        text = [line for line in text.splitlines() if line.startswith("data: ")][-1][6:]
    body: JsonObject = json.loads(text)
    if way == REST:
        return body
    if "error" in body:
        data = body["error"].get("data")
        return data if isinstance(data, dict) else {"code": str(body["error"]["code"])}
    found: JsonObject = json.loads(body["result"]["content"][0]["text"])
    return found
