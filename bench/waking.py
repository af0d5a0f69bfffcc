"""How soon one who waits is answered, and what a second worker is worth: `make bench-live`."""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import uvloop

from bench.load import http_request, run_load
from bench.servers import serve
from bench.throughput import CONNECTIONS, CONTENT, HEADERS, Target

WAKES = 500
POLL_S = 0.020
PAUSE_S = 0.005  # until the waiter waits; longer than its request takes
ROUNDS = 5
SECONDS = 2.0
# Of ten calls: what agents that work together do.
MIX = ("add_message",) * 4 + ("get_messages",) * 5 + ("search_context",)


def client_of(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=HEADERS, timeout=60)


async def call(client: httpx.AsyncClient, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await client.post(f"/mcp/tool/{tool}", json=arguments)
    answer.raise_for_status()
    body: dict[str, Any] = answer.json()
    return body


async def measure_wakes(
    writer: httpx.AsyncClient, reader: httpx.AsyncClient, *, is_polling: bool
) -> list[float]:
    """Seconds from sending a message to its arrival at the other, sorted."""
    session_id = (await call(writer, "create_session", purpose="waking"))["session_id"]

    async def receive(after_seq: int) -> None:
        where = {"session_id": session_id, "after_seq": after_seq}
        if not is_polling:
            await call(reader, "wait_for_messages", **where, timeout_seconds=30)
            return
        while not (await call(reader, "get_messages", **where))["messages"]:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)

    taken: list[float] = []
    for seq in range(WAKES):
        receiving = asyncio.create_task(receive(seq))
        await asyncio.sleep(PAUSE_S + POLL_S * (seq % 10) / 10)  # at all phases of a poll
        started = time.perf_counter()
        await call(writer, "add_message", session_id=session_id, content=CONTENT)
        await receiving
        taken.append(time.perf_counter() - started)
    return sorted(taken)


def print_wakes(name: str, taken: list[float], bar: str = "") -> None:
    median, tail = statistics.median(taken) * 1000, taken[int(0.99 * len(taken))] * 1000
    print(f"  {name:24} p50 {median:6.2f} ms   p99 {tail:6.2f} ms   {bar}")


async def report_wakes(port: int, other_port: int) -> None:
    async with client_of(port) as reader, client_of(port) as near, client_of(other_port) as far:
        print(f"\nFrom sending add_message to the answer of wait_for_messages, {WAKES} times")
        same = await measure_wakes(near, reader, is_polling=False)
        print_wakes("same process", same, "(bar: p99 at most 20 ms)")
        across = await measure_wakes(far, reader, is_polling=False)
        print_wakes("other process", across, "(bar: p99 at most 50 ms)")
        polled = await measure_wakes(far, reader, is_polling=True)
        print_wakes(f"poll every {POLL_S * 1000:.0f} ms", polled)


async def measure_mix(port: int, target: Target) -> None:
    async with client_of(port) as client:
        session_id = (await call(client, "create_session", purpose="mix"))["session_id"]
        await call(client, "add_message", session_id=session_id, content=CONTENT)
    bodies: dict[str, dict[str, object]] = {
        "add_message": {"session_id": session_id, "content": CONTENT},
        "get_messages": {"session_id": session_id, "limit": 10},
        "search_context": {"session_id": session_id, "query": "database migration", "limit": 5},
    }
    requests = itertools.cycle(
        [http_request(f"/mcp/tool/{tool}", bodies[tool], HEADERS) for tool in MIX]
    )
    load = await run_load(port, lambda: next(requests), connections=CONNECTIONS, seconds=SECONDS)
    target.loads.append(load)


async def report_workers(one_port: int, two_port: int) -> None:
    one, two = Target("1 worker", lambda: b"", []), Target("2 workers", lambda: b"", [])
    for _ in range(ROUNDS):
        await measure_mix(one_port, one)
        await measure_mix(two_port, two)
    print(f"\nMixed load over {CONNECTIONS} connections, {os.cpu_count()} processors for all")
    for target in (one, two):
        print(
            f"  {target.name:12} {target.rate:8.0f} req/s"
            f"   p50 {target.quantile_ms(0.5):6.2f} ms   p99 {target.quantile_ms(0.99):6.2f} ms"
        )
    print(
        f"  2 workers / 1: {two.rate / one.rate:.2f}x   (bar: at least 1.6x, on 2 idle processors)"
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as data_dir:
        shared, single, double = (str(Path(data_dir) / name) for name in ("a", "b", "c"))
        with serve(shared) as server, serve(shared) as other:
            uvloop.run(report_wakes(server.port, other.port))
        with serve(single) as one, serve(double, "--workers", "2") as two:
            uvloop.run(report_workers(one.port, two.port))


if __name__ == "__main__":
    main()
