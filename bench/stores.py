"""SQLite beside PostgreSQL, and where the limits of PostgreSQL lie: `make bench-stores`.

Everything on one machine: the servers, the load and the database share its processors. The database
is a PostgreSQL of its own with fsync on. Prints the tables of docs/scaling.md.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import platform
import random
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import uvloop

from bench import commits, growth
from bench.load import Load, MakeRequest, http_request, run_load
from bench.search_texts import make_texts
from bench.servers import Server, serve
from bench.tables import print_table
from bench.throughput import CONNECTIONS, CONTENT, HEADERS
from bench.waking import MIX, WAKES, call, client_of, measure_wakes
from tests.postgres import Cluster, open_cluster

ROUNDS = 5
SECONDS = 1.5
REPLICAS = 3
SEARCHED = 1_000
FILLED = 50
PAGE = 10
BATCH = 100  # the most calls of a batch


@dataclass
class Deployment:
    """Servers on one database, and what each kind of load came to, round by round."""

    name: str
    servers: Sequence[Server]
    loads: dict[str, list[Load]] = field(default_factory=dict)

    def rate(self, kind: str) -> float:
        return statistics.median(load.rate for load in self.loads[kind])

    def p99_ms(self, kind: str) -> float:
        return statistics.median(load.quantile(0.99) for load in self.loads[kind]) * 1000


def print_machine(directory: str) -> None:
    memory_gb = psutil.virtual_memory().total / 2**30
    print(
        f"{os.cpu_count()} processors for all, {memory_gb:.0f} GiB, load average"
        f" {os.getloadavg()[0]:.1f} at the start; Python {platform.python_version()};"
        f" an fsync takes {commits.measure_fsync_ms(directory):.2f} ms",
        flush=True,
    )


async def fill(server: Server) -> dict[str, Iterator[bytes]]:
    """Requests by kind of load, over sessions made for them: one a connection, and one to search."""
    async with client_of(server.port) as client:
        sessions = [
            (await call(client, "create_session", purpose="bench"))["session_id"]
            for _ in range(CONNECTIONS)
        ]
        searched = (await call(client, "create_session", purpose="bench"))["session_id"]
        texts = make_texts(SEARCHED, random.Random(1))
        messages = [(session, CONTENT) for session in sessions] * FILLED
        messages += [(searched, text) for text in texts]
        for start in range(0, len(messages), BATCH):
            calls = [
                {"tool": "add_message", "arguments": {"session_id": session, "content": content}}
                for session, content in messages[start : start + BATCH]
            ]
            answer = await client.post("/mcp/batch", json={"calls": calls})
            assert all(result["status"] == 200 for result in answer.json()["results"])

    def over_sessions(tool: str, **arguments: object) -> Iterator[bytes]:
        bodies = [{"session_id": session, **arguments} for session in sessions]
        return itertools.cycle(
            [http_request(f"/mcp/tool/{tool}", body, HEADERS) for body in bodies]
        )

    query = {"session_id": searched, "query": "database migration", "limit": 5}
    single = {
        "add_message": over_sessions("add_message", content=CONTENT),
        "get_messages": over_sessions("get_messages", limit=PAGE),
        "search_context": itertools.cycle(
            [http_request("/mcp/tool/search_context", query, HEADERS)]
        ),
    }
    return single | {"mixed": (next(single[tool]) for tool in itertools.cycle(MIX))}


async def run_over(servers: Sequence[Server], request: MakeRequest, seconds: float) -> Load:
    """The connections dealt out to the servers."""
    shares = [len(range(n, CONNECTIONS, len(servers))) for n in range(len(servers))]
    loads = await asyncio.gather(
        *(
            run_load(server.port, request, connections=share, seconds=seconds)
            for server, share in zip(servers, shares, strict=True)
        )
    )
    return Load(
        requests=sum(load.requests for load in loads),
        seconds=max(load.seconds for load in loads),
        latencies=sorted(itertools.chain(*(load.latencies for load in loads))),
    )


async def measure(deployments: Sequence[Deployment]) -> None:
    """All of them in turns, so that a noisy moment hits all alike."""
    requests = [await fill(deployment.servers[0]) for deployment in deployments]
    for number in range(ROUNDS + 1):
        for kind in requests[0]:
            for deployment, by_kind in zip(deployments, requests, strict=True):
                seconds = SECONDS if number else SECONDS / 4  # the first round warms up
                load = await run_over(deployment.servers, by_kind[kind].__next__, seconds)
                if number:
                    deployment.loads.setdefault(kind, []).append(load)


def report(deployments: Sequence[Deployment]) -> None:
    first = deployments[0]
    kinds = list(first.loads)
    print_table(
        f"Requests a second and p99 over REST, {CONNECTIONS} connections,"
        f" median of {ROUNDS} rounds of {SECONDS:g} s",
        ["", *kinds],
        [
            [of.name, *(f"{of.rate(kind):.0f}/s, {of.p99_ms(kind):.0f} ms" for kind in kinds)]
            for of in deployments
        ],
    )
    print_table(
        f"Requests a second as ratios to {first.name}, in the same run",
        ["", *kinds],
        [
            [of.name, *(f"{of.rate(kind) / first.rate(kind):.2f}x" for kind in kinds)]
            for of in deployments[1:]
        ],
    )


def report_connections(cluster: Cluster, servers: Sequence[Server]) -> None:
    """After the load, so that each backend has done all kinds of work."""
    backends = [
        process.memory_full_info().uss / 2**20
        for process in psutil.Process(cluster.pid).children()
        if " bench_one " in " ".join(process.cmdline())
    ]
    rss = [psutil.Process(server.pid).memory_info().rss / 2**20 for server in servers]
    print_table(
        "One replica after that load",
        ["its connections", "private memory of a backend", "memory of the replica"],
        [
            [
                str(len(backends)),
                f"{statistics.median(backends):.1f} MB",
                f"{statistics.median(rss):.0f} MB",
            ]
        ],
    )


async def report_wakes(near: Server, far: Server) -> None:
    rows = []
    for name, writer in (("same replica", near), ("other replica", far)):
        async with client_of(near.port) as reader, client_of(writer.port) as sender:
            taken = await measure_wakes(sender, reader, is_polling=False)
        p50, p99 = statistics.median(taken), taken[int(0.99 * len(taken))]
        rows.append([name, f"{p50 * 1000:.1f} ms", f"{p99 * 1000:.1f} ms"])
    print_table(
        f"From sending add_message to the answer of wait_for_messages, {WAKES} times",
        ["written at the", "p50", "p99"],
        rows,
    )


def compare(cluster: Cluster, directory: str) -> None:
    with ExitStack() as stack:
        data_dirs = (str(Path(directory) / str(number)) for number in itertools.count())

        def start(data_dir: str, **settings: str) -> Server:
            return stack.enter_context(serve(data_dir, **settings))

        def start_replicas(database: str, count: int) -> list[Server]:
            url = cluster.create_database(database)
            return [start(next(data_dirs), DATABASE_URL=url) for _ in range(count)]

        shared = next(data_dirs)
        deployments = [
            Deployment("SQLite, 1 process", [start(next(data_dirs))]),
            Deployment("the same, `FULL`", [start(next(data_dirs), SQLITE_SYNCHRONOUS="FULL")]),
            Deployment(f"SQLite, {REPLICAS} processes", [start(shared) for _ in range(REPLICAS)]),
            Deployment("PostgreSQL, 1 replica", start_replicas("bench_one", 1)),
            Deployment(
                f"PostgreSQL, {REPLICAS} replicas", start_replicas("bench_several", REPLICAS)
            ),
        ]
        uvloop.run(measure(deployments))
        report(deployments)
        report_connections(cluster, deployments[-2].servers)
        near, far, *_ = deployments[-1].servers
        uvloop.run(report_wakes(near, far))


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, open_cluster(is_durable=True) as cluster:
        print_machine(directory)
        compare(cluster, directory)
        uvloop.run(commits.report(cluster.create_database("commits"), directory))
        url = cluster.create_database("growth")
        session_id = uvloop.run(growth.report(url))
        with serve(str(Path(directory) / "searching"), DATABASE_URL=url) as server:
            uvloop.run(growth.report_search(server, session_id))
        print(f"\nLoad average at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
