"""The paths that are measured, as bytes on the wire, and the rounds in which they are."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx
import psutil

from bench.keys import API_KEY
from bench.load import Load, MakeRequest, fetch_body, http_request, run_load
from bench.servers import Server

CONNECTIONS = 20
CONTENT = "The deployment of the payment service failed at the database migration step."
HEADERS = {"X-API-Key": API_KEY, "X-Agent-ID": "bench"}
MODERN, HANDSHAKE = "2026-07-28", "2025-06-18"
ERAS = {"modern": MODERN, "handshake": HANDSHAKE}
PAGE = 50  # messages that are read at once

# Left to the SDK by the direct lane, which does not know it; the SDK passes over it.
UNKNOWN_TO_THE_LANE = {"io.modelcontextprotocol/x": 1}


@dataclass
class Target:
    """One path, and what was measured on it; `cpu_s` of the server's process, a round."""

    name: str
    request: MakeRequest
    loads: list[Load]
    key: str = ""
    cpu_s: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(load.rate for load in self.loads)

    def quantile_ms(self, q: float) -> float:
        return statistics.median(load.quantile(q) for load in self.loads) * 1000

    def cpu_ms(self) -> list[float]:
        """Processor time of the server's process for a call, a round."""
        return [
            1000 * spent / load.requests for spent, load in zip(self.cpu_s, self.loads, strict=True)
        ]


@dataclass(frozen=True)
class Subject:
    """A server that is measured, with its paths."""

    name: str
    server: Server
    targets: list[Target]


def _constant(request: bytes) -> MakeRequest:
    return lambda: request


def mcp_request(
    method: str,
    params: dict[str, object],
    version: str,
    accept: str = "application/json, text/event-stream",
    **meta: object,
) -> bytes:
    """A request of this protocol version as it goes over the wire."""
    headers = {**HEADERS, "MCP-Protocol-Version": version, "Accept": accept}
    if version == MODERN:
        meta |= {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        headers |= {"Mcp-Method": method}
        if "name" in params:
            headers |= {"Mcp-Name": str(params["name"])}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    return http_request("/mcp", body, headers)


def mcp_call(
    tool: str,
    arguments: dict[str, object],
    version: str,
    accept: str = "application/json, text/event-stream",
    **meta: object,
) -> bytes:
    """A tools/call of this protocol version as it goes over the wire."""
    params: dict[str, object] = {"name": tool, "arguments": arguments}
    return mcp_request("tools/call", params, version, accept, **meta)


async def make_targets(server: Server) -> list[Target]:
    """The paths of a server, in a session to write to and one to read from."""
    url = f"http://127.0.0.1:{server.port}"
    async with httpx.AsyncClient(base_url=url, headers=HEADERS) as client:

        async def call(tool: str, **arguments: object) -> dict[str, object]:
            answer = await client.post(f"/mcp/tool/{tool}", json=arguments)
            answer.raise_for_status()
            body: dict[str, object] = answer.json()
            return body

        written = (await call("create_session", purpose="written to"))["session_id"]
        read = (await call("create_session", purpose="read from"))["session_id"]
        for number in range(PAGE):
            await call("add_message", session_id=read, content=f"{number}: {CONTENT}")
    tools: dict[str, dict[str, object]] = {
        "add_message": {"session_id": written, "content": CONTENT},
        "get_time": {},
        "get_messages": {"session_id": read, "limit": PAGE},
    }
    targets: list[Target] = []

    def add(key: str, name: str, request: bytes) -> None:
        targets.append(Target(name, _constant(request), [], key))

    for tool, arguments in tools.items():
        shown = f"{tool} of {PAGE}" if tool == "get_messages" else tool
        add(f"rest {tool}", f"REST {shown}", http_request(f"/mcp/tool/{tool}", arguments, HEADERS))
        for era, version in ERAS.items():
            add(f"{era} {tool}", f"MCP {shown}, {version}", mcp_call(tool, arguments, version))
        if tool == "add_message":
            request = mcp_call(tool, arguments, HANDSHAKE, **UNKNOWN_TO_THE_LANE)
            add(f"sdk {tool}", f"MCP {shown}, {HANDSHAKE}, through the SDK", request)
    for era, version in ERAS.items():
        add(
            f"{era} tools/list",
            f"MCP tools/list, {version}",
            mcp_request("tools/list", {}, version),
        )
    return targets


async def make_bare_targets(
    bare: Server, server: Server, targets: Sequence[Target]
) -> list[Target]:
    """The baselines: a JSON route, and routes that answer with the very bytes of the server's."""
    by_key = {target.key: target for target in targets}
    url = f"http://127.0.0.1:{bare.port}"
    async with httpx.AsyncClient(base_url=url) as client:
        for name, key in (("messages", "rest get_messages"), ("tools", "modern tools/list")):
            body = await fetch_body(server.port, by_key[key].request())
            (await client.put(f"/kept/{name}", content=body)).raise_for_status()
    asked = {"session_id": "session_0123456789abcdef", "content": CONTENT}
    return [
        Target("bare route, JSON", _constant(http_request("/bare", asked)), [], "bare"),
        Target(
            f"bare route, the bytes of {PAGE} messages",
            _constant(http_request("/kept/messages", {"session_id": asked["session_id"]})),
            [],
            "bare messages",
        ),
        Target(
            "bare route, the bytes of tools/list",
            _constant(http_request("/kept/tools", {"method": "tools/list"})),
            [],
            "bare tools",
        ),
    ]


async def is_answered(server: Server, target: Target) -> bool:
    """Whether the server answers the path with success."""
    try:
        await run_load(server.port, target.request, connections=1, seconds=0)
    except (RuntimeError, OSError):
        return False
    return True


async def measure(
    subjects: Sequence[Subject],
    *,
    rounds: int,
    seconds: float,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Measure all paths of all subjects in turns, so that a noisy moment hits all alike. A first
    round, shorter, only warms."""
    order = _in_turns(subjects)
    for number in range(rounds + 1):
        for subject, target in order if number % 2 else _reversed_subjects(order):
            process = psutil.Process(subject.server.pid)
            before = _cpu_s(process)
            load = await run_load(
                subject.server.port,
                target.request,
                connections=CONNECTIONS,
                seconds=seconds if number else seconds / 4,
            )
            if number:
                target.cpu_s.append(_cpu_s(process) - before)
                target.loads.append(load)
        if number:
            tell(f"round {number} of {rounds}")


def _in_turns(subjects: Sequence[Subject]) -> list[tuple[Subject, Target]]:
    """Path by path, so that what is compared is measured one right after the other."""
    keys = dict.fromkeys(target.key for subject in subjects for target in subject.targets)
    return [
        (subject, target)
        for key in keys
        for subject in subjects
        for target in subject.targets
        if target.key == key
    ]


def _reversed_subjects(order: list[tuple[Subject, Target]]) -> list[tuple[Subject, Target]]:
    """The same paths in the same order, each path's subjects the other way round."""
    keys = dict.fromkeys(target.key for _, target in order)
    return [pair for key in keys for pair in reversed(order) if pair[1].key == key]


def _cpu_s(process: psutil.Process) -> float:
    """User and system time of all its threads; the kernel counts it in steps of 10 ms."""
    times = process.cpu_times()
    return float(times.user + times.system)
