"""What agents that wait cost: a thousand on one worker while idle, and five hundred that vanish."""

from __future__ import annotations

import asyncio
import tempfile
import time

import httpx
import psutil
import uvloop

from bench.load import http_request
from bench.servers import serve
from bench.throughput import HEADERS

WAITING = 1_000
VANISHING = 500
IDLE_S = 10.0
PATIENCE_S = 30.0


class Waiters:
    """Raw connections on each of which one wait_for_messages is under way."""

    def __init__(self, port: int, session_id: str) -> None:
        self._port = port
        body = {"session_id": session_id, "timeout_seconds": 120}
        self._request = http_request("/mcp/tool/wait_for_messages", body, HEADERS)
        self._writers: list[asyncio.StreamWriter] = []
        self.readers: list[asyncio.StreamReader] = []

    async def open(self, count: int) -> None:
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(self._request)
            self.readers.append(reader)
            self._writers.append(writer)
        await asyncio.gather(*(writer.drain() for writer in self._writers))

    async def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)


async def count_waiting(client: httpx.AsyncClient) -> int:
    """The server's own gauge."""
    text = (await client.get("/metrics")).text
    line = next(line for line in text.splitlines() if line.startswith("mcp_waiters"))
    return int(float(line.split()[-1]))


async def wait_for_count(client: httpx.AsyncClient, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while await count_waiting(client) != count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{await count_waiting(client)} wait instead of {count}")
        await asyncio.sleep(0.05)


async def measure(port: int, pid: int) -> None:
    """Prints as it goes."""
    server = psutil.Process(pid)
    base_url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=base_url, headers=HEADERS, timeout=60) as client:
        made = await client.post("/mcp/tool/create_session", json={"purpose": "waiters"})
        session_id = made.json()["session_id"]
        await _measure_idle(client, server, Waiters(port, session_id), session_id)
        await _measure_vanishing(client, server, Waiters(port, session_id))


async def _measure_idle(
    client: httpx.AsyncClient, server: psutil.Process, waiters: Waiters, session_id: str
) -> None:
    before_mb = server.memory_info().rss / 1_048_576
    await waiters.open(WAITING)
    await wait_for_count(client, WAITING)
    after_mb = server.memory_info().rss / 1_048_576
    cpu, started = server.cpu_times(), time.perf_counter()
    await asyncio.sleep(IDLE_S)
    used = server.cpu_times()
    busy = (used.user + used.system - cpu.user - cpu.system) / (time.perf_counter() - started)
    print(f"\n{WAITING} agents waiting on one worker")
    print(
        f"  memory {before_mb:.0f} -> {after_mb:.0f} MB"
        f" ({(after_mb - before_mb) * 1024 / WAITING:.1f} KiB each), CPU while idle {busy:.2%}"
    )
    started = time.perf_counter()
    add = {"session_id": session_id, "content": "now"}
    posting = asyncio.create_task(client.post("/mcp/tool/add_message", json=add))
    woken: list[float] = []

    async def hear(reader: asyncio.StreamReader) -> None:
        await reader.readuntil(b"\r\n\r\n")
        woken.append(time.perf_counter() - started)

    await asyncio.gather(*(hear(reader) for reader in waiters.readers), posting)
    woken.sort()
    print(
        f"  one message wakes all of them: first {woken[0] * 1000:.0f} ms,"
        f" median {woken[WAITING // 2] * 1000:.0f} ms, last {woken[-1] * 1000:.0f} ms"
    )
    await waiters.close()
    await wait_for_count(client, 0)


async def _measure_vanishing(
    client: httpx.AsyncClient, server: psutil.Process, waiters: Waiters
) -> None:
    made = await client.post("/mcp/tool/create_session", json={"purpose": "vanishing"})
    waiters = Waiters(waiters._port, made.json()["session_id"])
    before = server.num_fds(), server.num_threads()
    await waiters.open(VANISHING)
    await wait_for_count(client, VANISHING)
    during = server.num_fds(), server.num_threads()
    await waiters.close()
    await wait_for_count(client, 0)
    after = server.num_fds(), server.num_threads()
    print(
        f"  {VANISHING} clients vanish mid-wait: descriptors {before[0]} -> {during[0]} -> {after[0]},"
        f" threads {before[1]} -> {during[1]} -> {after[1]}, waiting 0"
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as data_dir, serve(data_dir) as server:
        uvloop.run(measure(server.port, server.pid))


if __name__ == "__main__":
    main()
