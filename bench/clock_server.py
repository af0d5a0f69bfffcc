"""How long get_time takes in a server, beside a tool that does nothing and one that
asks a time daemon over a socket.

Run by bench.clock as `python -m bench.clock_server measure PREFIX`, which prints JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from fastmcp import Client, FastMCP

from bench.app import bench_settings
from bench.keys import API_KEY
from bench.load import Load, run_load
from bench.throughput import MODERN, mcp_call
from shared_context_server.auth.middleware import current_connection
from shared_context_server.server import Server, open_server

TOOLS = ("noop", "get_time", "ask_time_daemon")
IN_PROCESS_CALLS = 400  # of each tool in a round
ROUNDS = 7
SECONDS = 1.0
NTP_EPOCH_S = 2_208_988_800
NTP_TIMESTAMP = struct.Struct("!Q")

Figures = dict[str, dict[str, float]]


def add_baselines(mcp: FastMCP[Any], ntp_port: int) -> None:
    """The tools that get_time stands beside: no work at all, and a question over UDP."""

    @mcp.tool
    def noop() -> dict[str, bool]:
        return {"success": True}

    @mcp.tool
    async def ask_time_daemon() -> dict[str, float]:
        return {"epoch_s": await ask_ntp(ntp_port)}


async def ask_ntp(port: int) -> float:
    """What the NTP server on this port of 127.0.0.1 says, by one exchange of its 48 bytes."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.setblocking(False)
        connection.connect(("127.0.0.1", port))
        await loop.sock_sendall(connection, b"\x23" + bytes(47))
        answer = await loop.sock_recv(connection, 48)
    return float(NTP_TIMESTAMP.unpack_from(answer, 40)[0] / 2**32 - NTP_EPOCH_S)


def serve_ntp() -> None:
    """Answer with the system clock until killed; print the port first."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
        while True:
            question, sender = listener.recvfrom(48)
            now = NTP_TIMESTAMP.pack(int((time.time() + NTP_EPOCH_S) * 2**32))
            listener.sendto(b"\x24\x02\x06\xec" + bytes(20) + question[40:48] + now + now, sender)


@contextmanager
def run_role(*arguments: str) -> Iterator[int]:
    """This module in a process of its own; the port it prints."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.clock_server", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def measure(prefix: str) -> Figures:
    """Figures by row, from the daemon of this prefix."""
    with tempfile.TemporaryDirectory() as data_dir, run_role("ntp") as ntp_port:
        figures = uvloop.run(measure_in_process(Path(data_dir), prefix, ntp_port))
        with run_role("http", data_dir, prefix, str(ntp_port)) as port:
            return figures | uvloop.run(measure_over_http(port))


async def measure_in_process(data_dir: Path, prefix: str, ntp_port: int) -> Figures:
    """Through FastMCP's own client, with nothing but memory between it and the server."""
    async with open_bench_server(data_dir, prefix, ntp_port) as server:
        current_connection.set(
            await server.services.identity.authenticate_headers(
                authorization=None, api_key=API_KEY, agent_id="bench", agent_type=None
            )
        )
        async with Client(server.mcp) as client:

            async def call(tool: str) -> list[float]:
                return await time_calls(lambda: client.call_tool(tool, {}))

            return summarise("in process", await take_turns(call))


async def time_calls(call: Callable[[], Awaitable[object]]) -> list[float]:
    latencies_s = []
    for _ in range(IN_PROCESS_CALLS):
        started_s = time.perf_counter()
        await call()
        latencies_s.append(time.perf_counter() - started_s)
    return sorted(latencies_s)


async def measure_over_http(port: int) -> Figures:
    """One connection, one call at a time."""

    async def call(tool: str) -> list[float]:
        request = mcp_call(tool, {}, MODERN)
        load: Load = await run_load(port, lambda: request, connections=1, seconds=SECONDS)
        return load.latencies

    return summarise("HTTP", await take_turns(call))


async def take_turns(call: Callable[[str], Awaitable[list[float]]]) -> dict[str, list[list[float]]]:
    """The latencies of each round by tool, the tools in turns so that a noisy moment hits all."""
    rounds: dict[str, list[list[float]]] = {tool: [] for tool in TOOLS}
    for number in range(ROUNDS + 1):
        for tool in TOOLS:
            latencies_s = await call(tool)
            if number:  # the first one warms up
                rounds[tool].append(latencies_s)
    return rounds


def summarise(where: str, rounds: dict[str, list[list[float]]]) -> Figures:
    """Medians over the rounds; the ratio is that of each round to the no-op's of the same round."""
    medians = {
        tool: [statistics.median(latencies) for latencies in of_tool]
        for tool, of_tool in rounds.items()
    }
    figures: Figures = {}
    for tool, of_tool in rounds.items():
        ratios = [mine / noop for mine, noop in zip(medians[tool], medians["noop"], strict=True)]
        p99 = [latencies[int(0.99 * (len(latencies) - 1))] for latencies in of_tool]
        figures[f"MCP {where}: {tool}"] = {
            "median_us": statistics.median(medians[tool]) * 1e6,
            "p99_us": statistics.median(p99) * 1e6,
            "to_noop": statistics.median(ratios),
        }
    return figures


@asynccontextmanager
async def open_bench_server(data_dir: Path, prefix: str, ntp_port: int) -> AsyncIterator[Server]:
    settings = bench_settings(data_dir).model_copy(update={"clock_prefix": prefix})
    async with open_server(settings) as server:
        add_baselines(server.mcp, ntp_port)
        yield server


async def serve_http(data_dir: Path, prefix: str, ntp_port: int) -> None:
    async with open_bench_server(data_dir, prefix, ntp_port) as server:
        config = uvicorn.Config(server.app, log_config=None, lifespan="off", ws="none")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            print(listener.getsockname()[1], flush=True)
            gc.collect()
            gc.freeze()
            await uvicorn.Server(config).serve(sockets=[listener])


def main() -> None:
    role, *arguments = sys.argv[1:]
    if role == "measure":
        print(json.dumps(measure(*arguments)))
    elif role == "ntp":
        serve_ntp()
    else:
        data_dir, prefix, ntp_port = arguments
        uvloop.run(serve_http(Path(data_dir), prefix, int(ntp_port)))


if __name__ == "__main__":
    main()
