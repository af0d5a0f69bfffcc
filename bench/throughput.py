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
MODERN, HANDSHAKE = "2026-07-28", "2025-06-18"


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


def mcp_call(
    tool: str,
    arguments: dict[str, object],
    version: str,
    accept: str = "application/json, text/event-stream",
    **meta: object,
) -> bytes:
    """A tools/call of this protocol version as it goes over the wire."""
    params: dict[str, object] = {"name": tool, "arguments": arguments, "_meta": meta}
    headers = {
        **HEADERS,
        "MCP-Protocol-Version": version,
        "Accept": accept,
    }
    if version == MODERN:
        meta |= {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        headers |= {"Mcp-Method": "tools/call", "Mcp-Name": tool}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return http_request("/mcp", body, headers)


async def measure(port: int) -> list[Target]:
    """All targets, measured in turns so that a noisy moment hits all alike."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=HEADERS) as client:
        made = await client.post("/mcp/tool/create_session", json={"purpose": "bench"})
    arguments: dict[str, object] = {"session_id": made.json()["session_id"], "content": CONTENT}

    def call(version: str, **options: object) -> MakeRequest:
        return _constant(mcp_call("add_message", arguments, version, **options))  # type: ignore[arg-type]

    targets = [
        Target("bare Starlette JSON route", _constant(http_request("/bare", arguments)), []),
        Target(
            "REST add_message (durable)",
            _constant(http_request("/mcp/tool/add_message", arguments, HEADERS)),
            [],
        ),
        Target(f"MCP add_message, {MODERN}", call(MODERN), []),
        Target(f"MCP add_message, {HANDSHAKE}", call(HANDSHAKE), []),
        # The direct lane leaves what it does not know to the SDK. In JSON, which costs the SDK less
        # than the stream that clients get who accept both.
        Target(
            "the same through the SDK",
            call(HANDSHAKE, accept="application/json", **{"io.modelcontextprotocol/x": 1}),
            [],
        ),
    ]
    for round_number in range(ROUNDS + 1):
        for target in targets:
            seconds = SECONDS if round_number else SECONDS / 4
            load = await run_load(port, target.request, connections=CONNECTIONS, seconds=seconds)
            if round_number:
                target.loads.append(load)
    return targets


def report(targets: list[Target]) -> None:
    bare, rest, modern, handshake, sdk = targets
    print(f"\nThroughput, {CONNECTIONS} connections, median of {ROUNDS} rounds of {SECONDS:g} s")
    for target in targets:
        print(
            f"  {target.name:30} {target.rate:8.0f} req/s"
            f"   p50 {target.quantile_ms(0.5):6.2f} ms   p99 {target.quantile_ms(0.99):6.2f} ms"
        )
    print(f"  REST add_message / bare route: {rest.rate / bare.rate:6.1%}   (bar: at least 50%)")
    for mcp in (modern, handshake):
        print(f"  {mcp.name} / REST: {mcp.rate / rest.rate:6.1%}   (bar: at least 85%)")
    print(f"  {handshake.name} / the SDK: {handshake.rate / sdk.rate:4.1f}x   (bar: at least 6x)")
    for target in (rest, modern, handshake):
        tail = target.quantile_ms(0.99) / target.quantile_ms(0.5)
        print(f"  {target.name}, p99 / p50: {tail:4.1f}x   (bar: at most 3x)")
