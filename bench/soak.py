"""100,000 mixed calls with clients that vanish: what a server still holds after each tenth of them.

`make soak`. With --postgres the server stores in a PostgreSQL of its own, from the wheel of the tests, with
--database-url in an empty database that is there. A server process is called over HTTP and both eras of MCP. Every fifth call is cut off: in
the middle of its body, before its answer, while it waits, or while it reads a stream. After each tenth
all clients pause, and once the server rests, its descriptors, threads, tasks and memory are counted.
Exits with 1 if they grow.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import uvloop

from bench.keys import API_KEY
from bench.load import http_request
from bench.servers import Server, serve
from bench.throughput import HANDSHAKE, MODERN, mcp_call
from tests.postgres import open_cluster

POINTS = 10
CLIENTS = 20
SESSIONS = 4  # new ones for each tenth; those before are deleted, so that the data does not grow
CUT_SHARE = 0.2
CUT_AFTER_S = 0.05  # at most
ANSWER_S = 60.0
# The child that writes the search index ends after 15 s without work, and a server gives freed memory back
# to the system each 30 s.
REST_AT_LEAST_S = 31.0
REST_S = 90.0
REST_LOOK_S = 0.5
SAME_LOOKS = 4  # with the same counts: the server rests
MORE_MB = 10.0  # that is allowed from the third point to the last: 100 bytes a call, or one table
MORE_OF_A_KIND = 3  # descriptors, threads, tasks: a check or a flush that was going on
_BYTES_PER_MB = 1_000_000
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """What a server holds after so many calls. `private_mb`: memory that no file stands behind."""

    calls: int
    descriptors: int
    threads: int
    tasks: int
    private_mb: float
    resident_mb: float


@dataclass
class Soak:
    port: int
    random: random.Random
    sessions: list[str] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)

    def pick(self) -> str:
        return self.random.choice(self.sessions)


def request_of(agent: str, tool: str, arguments: Arguments) -> bytes:
    return http_request(f"/mcp/tool/{tool}", arguments, {"X-API-Key": API_KEY, "X-Agent-ID": agent})


class Client:
    """An agent with a connection that it keeps, and others that it cuts off."""

    def __init__(self, soak: Soak, number: int) -> None:
        self._soak = soak
        self._agent = f"agent-{number}"
        self._turn = number
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self, calls: int) -> None:
        for _ in range(calls):
            self._turn += 1
            if self._soak.random.random() < CUT_SHARE:
                await self._vanish()
            else:
                await self.call(self._make_request())

    def _make_request(self) -> bytes:
        session_id, turn = self._soak.pick(), self._turn
        text = f"step {turn} of {self._agent}: the build of branch {turn % 977} has failed"
        message: Arguments = {"session_id": session_id, "content": text}
        calls: list[Callable[[], bytes]] = [
            lambda: self._rest("add_message", **message, idempotency_key=f"{self._agent}-{turn}"),
            lambda: mcp_call("add_message", message, MODERN),
            lambda: mcp_call("add_message", message, HANDSHAKE),
            lambda: self._rest("get_messages", session_id=session_id, limit=20),
            lambda: self._rest("get_digest", session_id=session_id, max_tokens=500),
            lambda: self._rest("search_context", session_id=session_id, query="build faled"),
            lambda: self._rest("set_memory", key=f"k{turn % 50}", value={"turn": turn}),
            lambda: self._rest("get_memory", key="shared", session_id=session_id, scope="shared"),
            lambda: self._rest("list_sessions", limit=10),
            lambda: self._rest("acquire_lease", name=f"lease-{turn % 5}", ttl_seconds=1),
            lambda: self._rest("set_status", text=f"at step {turn}"),
            lambda: self._rest("wait_for_messages", session_id=session_id, timeout_seconds=0),
            lambda: mcp_call("get_messages", {"session_id": session_id, "limit": 5}, HANDSHAKE),
        ]
        return calls[turn % len(calls)]()

    def _rest(self, tool: str, **arguments: object) -> bytes:
        return request_of(self._agent, tool, arguments)

    async def call(self, request: bytes) -> bytes:
        """The body of the answer, on the kept connection."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._soak.port)
        reader, writer = self._streams
        async with asyncio.timeout(ANSWER_S):
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            body = await reader.readexactly(length)
        status = head[9:12].decode()
        self._soak.statuses[status] += 1
        # 404: nobody has written the shared entry.
        if status not in {"200", "404"} or b'"isError":true' in body:
            self._soak.unexpected.append(body.decode(errors="replace")[:300])
        return body

    async def _vanish(self) -> None:
        """Begin a call on a connection of its own and cut it off."""
        kind, request = self._make_cut_request()
        self._soak.statuses[f"cut: {kind}"] += 1
        with contextlib.suppress(ConnectionError):
            _, writer = await asyncio.open_connection("127.0.0.1", self._soak.port)
            writer.write(request)
            await asyncio.sleep(self._soak.random.random() * CUT_AFTER_S)
            if self._soak.random.random() < 0.5:
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.close()
            await writer.wait_closed()

    def _make_cut_request(self) -> tuple[str, bytes]:
        session_id = self._soak.pick()
        waiting: Arguments = {"session_id": session_id, "timeout_seconds": 60}
        key = f"X-API-Key: {API_KEY}\r\nX-Agent-ID: {self._agent}"
        stream = f"GET /events?session_id={session_id} HTTP/1.1\r\nHost: 127.0.0.1\r\n{key}\r\n\r\n"
        whole = self._rest("add_message", session_id=session_id, content="cut off " + "x" * 2000)
        kinds: list[tuple[str, bytes]] = [
            ("half a body", whole[: len(whole) // 2]),
            ("half a head", whole[:60]),
            ("before the answer", whole),
            ("in a wait", self._rest("wait_for_messages", **waiting)),
            ("in a wait over MCP", mcp_call("wait_for_messages", waiting, MODERN)),
            ("in a wait for a lease", self._rest("acquire_lease", name="held", wait_seconds=60)),
            ("in a stream", stream.encode()),
        ]
        return self._soak.random.choice(kinds)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


async def run(server: Server, counts: Path, calls: int, seed: int) -> tuple[list[Point], Soak]:
    soak = Soak(server.port, random.Random(seed))
    clients = [Client(soak, number) for number in range(CLIENTS)]
    points: list[Point] = []
    for tenth in range(POINTS):
        await renew_sessions(soak, clients[0])
        share = calls // POINTS // CLIENTS
        await asyncio.gather(*(client.run(share) for client in clients))
        points.append(await look(server.pid, counts, (tenth + 1) * share * CLIENTS))
        print(describe(points[-1]), flush=True)
    for client in clients:
        client.close()
    return points, soak


async def renew_sessions(soak: Soak, client: Client) -> None:
    """Sessions for the next tenth; those of the last one are deleted."""
    gone, soak.sessions = soak.sessions, []
    for number in range(SESSIONS):
        made = await client.call(request_of("agent-0", "create_session", {"purpose": f"{number}"}))
        soak.sessions.append(json.loads(made)["session_id"])
    for session_id in gone:
        await client.call(request_of("agent-0", "delete_session", {"session_id": session_id}))
    held = {"name": "held", "ttl_seconds": 3600}
    await client.call(request_of("holder", "acquire_lease", held))


async def look(pid: int, counts: Path, calls: int) -> Point:
    """What the server holds once that does not change any more, REST_S at most."""
    process = psutil.Process(pid)
    began = time.monotonic()
    last = await count(process, counts, calls)
    same = 0
    while (rested_s := time.monotonic() - began) < REST_S and (
        rested_s < REST_AT_LEAST_S or same < SAME_LOOKS or process.children()
    ):
        await asyncio.sleep(REST_LOOK_S)
        now = await count(process, counts, calls)
        held = (now.descriptors, now.threads, now.tasks)
        same = same + 1 if held == (last.descriptors, last.threads, last.tasks) else 0
        last = now
    return last


async def count(process: psutil.Process, counts: Path, calls: int) -> Point:
    counts.unlink(missing_ok=True)
    os.kill(process.pid, signal.SIGUSR1)
    async with asyncio.timeout(ANSWER_S):
        while not counts.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)
    memory = process.memory_info()
    return Point(
        calls,
        process.num_fds(),
        process.num_threads(),
        int(counts.read_text()),
        (memory.rss - memory.shared) / _BYTES_PER_MB,
        memory.rss / _BYTES_PER_MB,
    )


def describe(point: Point) -> str:
    return (
        f"{point.calls:>9} {point.descriptors:>12} {point.threads:>8} {point.tasks:>6}"
        f" {point.private_mb:>11.1f} {point.resident_mb:>12.1f}"
    )


def find_growth(points: list[Point]) -> list[str]:
    """What grew, from the third point on, when everything has been used once."""
    first, last = points[2], points[-1]
    grown = [
        f"{name}: from {getattr(first, name)} to {getattr(last, name)}"
        for name in ("descriptors", "threads", "tasks")
        if getattr(last, name) > getattr(first, name) + MORE_OF_A_KIND
    ]
    if last.private_mb > first.private_mb + MORE_MB:
        grown.append(f"memory: from {first.private_mb:.1f} to {last.private_mb:.1f} MB")
    return grown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    stores = parser.add_mutually_exclusive_group()
    stores.add_argument("--postgres", action="store_true", help="on a PostgreSQL that is started")
    stores.add_argument("--database-url", help="in this database, which has to be empty")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        url = options.database_url
        if options.postgres:
            url = stack.enter_context(open_cluster(is_durable=True)).create_database("soak")
        settings = {} if url is None else {"DATABASE_URL": url}
        counts = Path(directory) / "tasks"
        program = ("bench.counted", str(counts))
        paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": paths}
        with serve(directory, program=program, environment=environment, **settings) as server:
            began = time.monotonic()
            print("    calls  descriptors  threads  tasks  private MB  resident MB")
            points, soak = uvloop.run(run(server, counts, options.calls, options.seed))
    cut = sum(number for kind, number in soak.statuses.items() if kind.startswith("cut"))
    print(f"{sum(soak.statuses.values())} calls, {cut} of them cut off")
    print(f"in {time.monotonic() - began:.0f} s, answers and cuts: {dict(soak.statuses)}")
    grown = [f"grew: {what}" for what in find_growth(points)]
    wrong = [f"unexpected: {text}" for text in soak.unexpected[:5]]
    for line in grown + wrong:
        print(line)
    print("flat" if not grown else "NOT flat")
    return 1 if grown or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
