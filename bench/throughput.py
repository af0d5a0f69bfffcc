"""Requests a second over 20 connections: REST and MCP add_message beside their baselines."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import httpx

from bench.app import API_KEY
from bench.load import Load, MakeRequest, http_request, run_load

CONNECTIONS = 20
ROUNDS = 5
SECONDS = 2.0
CONTENT = "The deployment of the payment service failed at the database migration step."
HEADERS = {"X-API-Key": API_KEY, "X-Agent-ID": "bench"}
MODERN = "2026-07-28"


@dataclass
class Target:
    name: str
    request: MakeRequest
    loads: list[Load]

    @property
    def rate(self) -> float:
        return statistics.median(load.rate for load in self.loads)

    def quantile_ms(self, q: float) -> float:
        return statistics.median(load.quantile(q) for load in self.loads) * 1000


def _constant(request: bytes) -> MakeRequest:
    return lambda: request


def mcp_call(tool: str, arguments: dict[str, object]) -> bytes:
    """A modern tools/call as it goes over the wire."""
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": tool,
            "arguments": arguments,
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    }
    headers = {
        **HEADERS,
        "MCP-Protocol-Version": MODERN,
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
        "Accept": "application/json, text/event-stream",
    }
    return http_request("/mcp", body, headers)


async def measure(port: int) -> list[Target]:
    """The four targets, measured in turns so that a noisy moment hits all alike."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=HEADERS) as client:
        made = await client.post("/mcp/tool/create_session", json={"purpose": "bench"})
    arguments: dict[str, object] = {"session_id": made.json()["session_id"], "content": CONTENT}
    targets = [
        Target("bare Starlette JSON route", _constant(http_request("/bare", arguments)), []),
        Target(
            "REST add_message (durable)",
            _constant(http_request("/mcp/tool/add_message", arguments, HEADERS)),
            [],
        ),
        Target("MCP no-op tool", _constant(mcp_call("noop", arguments)), []),
        Target("MCP add_message", _constant(mcp_call("add_message", arguments)), []),
    ]
    for round_number in range(ROUNDS + 1):
        for target in targets:
            seconds = SECONDS if round_number else SECONDS / 4
            load = await run_load(port, target.request, connections=CONNECTIONS, seconds=seconds)
            if round_number:
                target.loads.append(load)
    return targets


def report(targets: list[Target]) -> None:
    bare, rest, noop, mcp = targets
    print(f"\nThroughput, {CONNECTIONS} connections, median of {ROUNDS} rounds of {SECONDS:g} s")
    for target in targets:
        print(
            f"  {target.name:28} {target.rate:8.0f} req/s"
            f"   p50 {target.quantile_ms(0.5):6.2f} ms   p99 {target.quantile_ms(0.99):6.2f} ms"
        )
    print(f"  REST add_message / bare route: {rest.rate / bare.rate:6.1%}   (bar: at least 50%)")
    print(f"  MCP add_message / MCP no-op:   {mcp.rate / noop.rate:6.1%}   (bar: at least 90%)")
    tail = rest.quantile_ms(0.99) / rest.quantile_ms(0.5)
    print(f"  REST add_message p99 / p50:    {tail:6.1f}x  (bar: at most 4x)")
