"""What a tool call costs in the agent's own process, beside the ways over HTTP: `make bench-embed`.

Each call is made one at a time, on every path in turns, and stands beside a tool of the registry
that does nothing, on the same path. The HTTP server is a process of its own; its requests are
prepared bytes on a raw connection, so the client's part is smaller there than any real client's.
"""

from __future__ import annotations

import gc
import itertools
import json
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
import uvloop
from fastmcp import Client

from bench.app import bench_settings
from bench.load import http_request, run_load
from bench.throughput import CONTENT, HEADERS, MODERN, mcp_call
from shared_context_server.embed import ControlRouter
from shared_context_server.embed.sdk_server import bind_to_agent, make_agent
from shared_context_server.models import Permission
from shared_context_server.server import Server, open_server
from shared_context_server.services.context import Services
from shared_context_server.tools.arguments import Arguments, Result
from shared_context_server.tools.mcp import McpTool
from shared_context_server.tools.registry import ADDS, Call, Tool

CALLS = 400  # of each tool in a round in process
ROUNDS = 7
SECONDS = 0.5  # of each tool in a round over HTTP
TOOLS = ("noop", "get_time", "get_messages", "add_message")
READ_LIMIT = 10
FILLED = 50  # messages of the session that is read
PATHS = ("embedded, control protocol", "in memory, FastMCP client", "HTTP, REST", "HTTP, MCP")

Measure = Callable[[str, int], Awaitable[list[float]]]


class NoArguments(Arguments):
    pass


class NoResult(Result):
    pass


async def noop(services: Services, call: Call, arguments: NoArguments) -> NoResult:
    """Nothing."""
    return NoResult()


NOOP = Tool("noop", NoArguments, NoResult, noop, Permission.READ, ADDS)


@asynccontextmanager
async def open_bench_server(data_dir: Path, prefix: str) -> AsyncIterator[Server]:
    """The server with the tool that does nothing on all its surfaces."""
    settings = bench_settings(data_dir).model_copy(update={"clock_prefix": prefix})
    async with open_server(settings) as server:
        server.dispatcher.tools = {**server.dispatcher.tools, NOOP.name: NOOP}
        server.mcp.add_tool(McpTool.of(NOOP, server.dispatcher, None))
        yield server


async def serve_http(data_dir: Path, prefix: str) -> None:
    async with open_bench_server(data_dir, prefix) as server:
        config = uvicorn.Config(server.app, log_config=None, lifespan="off", ws="none")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            print(listener.getsockname()[1], flush=True)
            gc.collect()
            gc.freeze()
            await uvicorn.Server(config).serve(sockets=[listener])


@contextmanager
def run_process(*command: str) -> Iterator[str]:
    """A process of this interpreter until the block ends; yields the first line it prints."""
    with subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline()
        finally:
            process.terminate()


async def time_calls(call: Callable[[], Awaitable[object]], count: int) -> list[float]:
    latencies_s = []
    for _ in range(count):
        started_s = time.perf_counter()
        await call()
        latencies_s.append(time.perf_counter() - started_s)
    return sorted(latencies_s)


@dataclass
class Way:
    """A way to call tools: `measure(tool, round)` is a round's latencies in seconds, sorted."""

    name: str
    measure: Measure
    rounds: dict[str, list[list[float]]] = field(default_factory=dict)

    async def add_round(self, number: int) -> None:
        for tool in TOOLS:
            latencies_s = await self.measure(tool, number)
            if number:  # the first one warms up
                self.rounds.setdefault(tool, []).append(latencies_s)

    def quantile_us(self, tool: str, q: float) -> float:
        of_rounds = [latencies[int(q * (len(latencies) - 1))] for latencies in self.rounds[tool]]
        return statistics.median(of_rounds) * 1e6

    def ratio_to_noop(self, tool: str) -> float:
        pairs = zip(self.rounds[tool], self.rounds["noop"], strict=True)
        return statistics.median(
            statistics.median(mine) / statistics.median(base) for mine, base in pairs
        )


def arguments_of(tool: str, session_id: str) -> dict[str, Any]:
    if tool == "get_messages":
        return {"session_id": session_id, "limit": READ_LIMIT}
    return {"session_id": session_id, "content": CONTENT} if tool == "add_message" else {}


def embedded_path(router: ControlRouter, session_id: str) -> Way:
    """From the line that the command line writes to the line that it reads."""
    numbers = itertools.count()

    async def call(tool: str) -> None:
        number = next(numbers)
        params = {"name": tool, "arguments": arguments_of(tool, session_id)}
        message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
        body = {"subtype": "mcp_message", "server_name": "bench", "message": message}
        envelope = {"type": "control_request", "request_id": f"r{number}", "request": body}
        answer = await router.handle(json.dumps(envelope))
        assert answer is not None
        assert '"isError":false' in answer, answer

    async def measure(tool: str, _number: int) -> list[float]:
        return await time_calls(lambda: call(tool), CALLS)

    return Way(PATHS[0], measure)


def in_memory_path(client: Client[Any], session_id: str) -> Way:
    async def measure(tool: str, _number: int) -> list[float]:
        arguments = arguments_of(tool, session_id)
        return await time_calls(lambda: client.call_tool(tool, arguments), CALLS)

    return Way(PATHS[1], measure)


def http_path(name: str, port: int, session_id: str) -> Way:
    def request_of(tool: str) -> bytes:
        arguments = arguments_of(tool, session_id)
        if name == "HTTP, MCP":
            return mcp_call(tool, arguments, MODERN)
        return http_request(f"/mcp/tool/{tool}", arguments, HEADERS)

    async def measure(tool: str, _number: int) -> list[float]:
        request = request_of(tool)
        load = await run_load(port, lambda: request, connections=1, seconds=SECONDS)
        return load.latencies

    return Way(name, measure)


async def fill_session(port: int) -> str:
    """A session to read and another's to grow would differ; each path has one of its own."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=HEADERS) as client:
        made = await client.post("/mcp/tool/create_session", json={"purpose": "bench"})
        session_id: str = made.json()["session_id"]
        for _ in range(FILLED):
            message = {"session_id": session_id, "content": CONTENT}
            (await client.post("/mcp/tool/add_message", json=message)).raise_for_status()
    return session_id


async def measure(data_dir: Path, prefix: str, port: int) -> list[Way]:
    """All paths on one data dir, in turns so that a noisy moment hits all alike."""
    sessions = [await fill_session(port) for _ in PATHS]
    agent = make_agent("bench", "generic", ("read", "write"))
    async with open_bench_server(data_dir, prefix) as server:
        low_level = await bind_to_agent(server, agent)
        async with ControlRouter({"bench": low_level}) as router, Client(server.mcp) as client:
            paths = [
                embedded_path(router, sessions[0]),
                in_memory_path(client, sessions[1]),
                http_path(PATHS[2], port, sessions[2]),
                http_path(PATHS[3], port, sessions[3]),
            ]
            gc.collect()
            gc.freeze()
            for number in range(ROUNDS + 1):
                for path in paths:
                    await path.add_round(number)
    return paths


def report(paths: list[Way]) -> None:
    print(f"\nOne call at a time, median of {ROUNDS} rounds; to no-op: on the same path")
    print(f"  {'':44} {'p50':>9} {'p99':>9} {'to no-op':>9} {'to embedded':>12}")
    for tool in TOOLS:
        for path in paths:
            p50 = path.quantile_us(tool, 0.5)
            to_embedded = p50 / paths[0].quantile_us(tool, 0.5)
            print(
                f"  {tool:14} {path.name:29} {p50:6.0f} µs {path.quantile_us(tool, 0.99):6.0f} µs"
                f" {path.ratio_to_noop(tool):8.2f}x {to_embedded:11.2f}x"
            )


def main() -> None:
    prefix = f"bench{secrets.token_hex(4)}_"
    with (
        tempfile.TemporaryDirectory() as data_dir,
        run_process("shared_context_server.clock", "--prefix", prefix),
        run_process("bench.embed", data_dir, prefix) as port,
    ):
        report(uvloop.run(measure(Path(data_dir), prefix, int(port))))


if __name__ == "__main__":
    if sys.argv[1:]:
        uvloop.run(serve_http(Path(sys.argv[1]), sys.argv[2]))
    else:
        main()
