"""Workers that claim tasks while a third of them is killed: each task is done once, none is lost.

`python -m bench.task_workers` runs ten workers on 1,000 tasks that depend on one another, as processes
over HTTP and as ten clients of one MCP connection, on SQLite and PostgreSQL, with one and two server
processes, and checks what the log says afterwards. Exit status 1: a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport

from bench.servers import Server, serve
from bench.tables import print_table
from bench.task_worker import Call, headers_of, http_call, open_http, work
from tests.postgres import Cluster, open_cluster

STORES = ("SQLite", "PostgreSQL")
LATEST_DEPENDENCY = 50  # a task depends on some of as many before it
BATCH = 100
PAGE = 200


@dataclass(frozen=True)
class Setup:
    tasks: int
    workers: int
    victims: int
    seed: int


@dataclass
class Outcome:
    """What a run came to. `faults`: the broken promises, in words."""

    seconds: float
    server_cpu_s: float
    claims: int
    victims: int
    faults: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--store", choices=STORES, action="append")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    setup = Setup(options.tasks, options.workers, -(-options.workers // 3), options.seed)
    print("seed", setup.seed)
    rows = []
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        cluster = stack.enter_context(open_cluster())
        for store in options.store or STORES:
            for processes in (1, 2):
                for way in (run_processes, run_connection):
                    name = f"{store}, {processes}, {way.__name__}"
                    with run_server(store, processes, directory, cluster) as server:
                        outcome = asyncio.run(way(server, setup))
                    faults += [f"{name}: {fault}" for fault in outcome.faults]
                    rows.append(describe(store, processes, way, setup, outcome))
                    print(rows[-1], flush=True)
    print_table(
        f"{setup.tasks} tasks, {setup.workers} workers, {setup.victims} of them killed",
        ("store", "processes", "workers", "killed", "claims", "s", "tasks/s", "server ms/task"),
        rows,
    )
    print("\n".join(faults) or "each task was done once, and none is lost")
    return 1 if faults else 0


def describe(
    store: str, processes: int, way: Callable[..., Any], setup: Setup, outcome: Outcome
) -> tuple[str, ...]:
    return (
        store,
        str(processes),
        "processes, HTTP" if way is run_processes else "one MCP connection",
        f"{outcome.victims} of {setup.workers}",
        str(outcome.claims),
        f"{outcome.seconds:.1f}",
        f"{setup.tasks / outcome.seconds:.0f}",
        f"{outcome.server_cpu_s / setup.tasks * 1000:.1f}",
    )


@contextmanager
def run_server(store: str, processes: int, directory: str, cluster: Cluster) -> Iterator[Server]:
    data_dir = tempfile.mkdtemp(dir=directory)
    options = ["--workers", str(processes)]
    if store == "PostgreSQL":
        name = f"tasks_{Path(data_dir).name}"
        options += ["--database-url", cluster.create_database(name)]
    with serve(data_dir, *options) as server:
        yield server


# The tasks


async def add_tasks(call: Call, url: str, setup: Setup) -> str:
    chooser = random.Random(setup.seed)
    created = await call("create_session", purpose="Tasks")
    session_id = str(created["session_id"])
    calls = []
    for number in range(1, setup.tasks + 1):
        earlier = range(max(1, number - LATEST_DEPENDENCY), number)
        depends_on = chooser.sample(earlier, min(len(earlier), chooser.randrange(4)))
        arguments = {
            "session_id": session_id,
            "title": f"Task {number}",
            "depends_on": depends_on,
            "priority": chooser.randrange(3),
        }
        calls.append({"tool": "add_task", "arguments": arguments})
    async with httpx.AsyncClient(
        base_url=url, headers=headers_of("coordinator"), timeout=300
    ) as http:
        for start in range(0, len(calls), BATCH):
            answer = await http.post("/mcp/batch", json={"calls": calls[start : start + BATCH]})
            assert {result["status"] for result in answer.json()["results"]} == {200}
    return session_id


# Ten processes


async def run_processes(server: Server, setup: Setup) -> Outcome:
    """Each worker is a process with an agent id of its own, and says when it has begun a task."""
    url = f"http://127.0.0.1:{server.port}"
    async with open_http(url, "coordinator") as http:
        session_id = await add_tasks(http_call(http), url, setup)
        last = deadlines(setup)
        workers = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.task_worker", url, session_id),
                *(f"worker-{number}", str(setup.seed + number)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            for number in range(setup.workers)
        ]
        for worker in workers:
            assert worker.stdout is not None
            await worker.stdout.readline()  # ready
        before, started_at = cpu_s(server), time.monotonic()
        killed = await asyncio.gather(
            *[watch(worker, last.get(number)) for number, worker in enumerate(workers)]
        )
        outcome = Outcome(time.monotonic() - started_at, cpu_s(server) - before, 0, sum(killed))
        await check(http_call(http), session_id, setup, outcome)
    return outcome


async def watch(worker: asyncio.subprocess.Process, last: int | None) -> bool:
    """Kill the worker as soon as it has begun its last task. Return whether it was killed."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(b"\n")
    begun = 0
    async for _line in worker.stdout:
        begun += 1
        if begun == last:
            worker.send_signal(signal.SIGKILL)
            await worker.wait()
            return True
    await worker.wait()
    return False


def deadlines(setup: Setup) -> dict[int, int]:
    """For each victim, with how many begun tasks it is killed."""
    chooser = random.Random(setup.seed)
    each = max(2, setup.tasks // setup.workers // 3)
    victims = chooser.sample(range(setup.workers), setup.victims)
    return {victim: chooser.randrange(1, each) for victim in victims}


# Ten clients of one connection


async def run_connection(server: Server, setup: Setup) -> Outcome:
    """All workers share one MCP client, one key and one agent id. A victim stops in the middle of a
    task, as if it had been killed."""
    url = f"http://127.0.0.1:{server.port}"
    transport = StreamableHttpTransport(f"{url}/mcp", headers=headers_of("workers"))
    async with open_http(url, "coordinator") as http, Client(transport) as client:
        session_id = await add_tasks(http_call(http), url, setup)
        last = deadlines(setup)
        before, started_at = cpu_s(server), time.monotonic()

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            answer = await client.call_tool(tool, arguments, raise_on_error=False)
            body: dict[str, Any] = answer.structured_content or {}
            return body

        killed = await asyncio.gather(
            *[
                work_until(call, session_id, setup.seed + number, last.get(number))
                for number in range(setup.workers)
            ]
        )
        outcome = Outcome(time.monotonic() - started_at, cpu_s(server) - before, 0, sum(killed))
        await check(http_call(http), session_id, setup, outcome)
    return outcome


class Stopped(Exception):
    """The end of a worker that stops in the middle of a task."""


async def work_until(call: Call, session_id: str, seed: int, last: int | None) -> bool:
    begun = 0

    def note() -> None:
        nonlocal begun
        begun += 1
        if begun == last:
            raise Stopped

    try:
        await work(call, session_id, random.Random(seed), note)
    except Stopped:
        return True
    return False


# What the log says


async def check(call: Call, session_id: str, setup: Setup, outcome: Outcome) -> None:
    """Add the broken promises to the outcome."""
    tasks = await read_all(call, "list_tasks", "tasks", session_id)
    log = await read_log(call, session_id)
    changes = [
        (message["metadata"]["task_id"], message["metadata"]["state"], message["seq"])
        for message in log
    ]
    claims = Counter(task_id for task_id, state, _ in changes if state == "claimed")
    ends = {task_id: seq for task_id, state, seq in changes if state == "done"}
    begins: dict[int, int] = {}
    for task_id, state, seq in changes:
        if state == "claimed":
            begins.setdefault(task_id, seq)
    outcome.claims = claims.total()
    faults = outcome.faults
    if outcome.victims != setup.victims:
        faults.append(f"{outcome.victims} workers were killed, not {setup.victims}")
    if [task["id"] for task in tasks] != [*range(1, setup.tasks + 1)]:
        faults.append(f"{len(tasks)} tasks are listed")
    faults += [f"task {task['id']} is {task['state']}" for task in tasks if task["state"] != "done"]
    done = Counter(task_id for task_id, state, _ in changes if state == "done")
    faults += [
        f"task {task_id} was done {times} times" for task_id, times in done.items() if times > 1
    ]
    for task in tasks:
        faults += [
            f"task {task['id']} was begun before {earlier} was done"
            for earlier in task["depends_on"]
            if task["id"] in begins and begins[task["id"]] < ends.get(earlier, sys.maxsize)
        ]
    # A killed worker leaves one claim behind; only slow ones lose others.
    if not setup.tasks + outcome.victims <= outcome.claims:
        faults.append(f"{outcome.claims} claims for {setup.tasks} tasks")


async def read_all(call: Call, tool: str, name: str, session_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = await call(tool, session_id=session_id, limit=PAGE, **cursor)
        found += page[name]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


async def read_log(call: Call, session_id: str) -> Sequence[dict[str, Any]]:
    log: list[dict[str, Any]] = []
    has_more = True
    while has_more:
        after_seq = log[-1]["seq"] if log else 0
        page = await call("get_messages", session_id=session_id, after_seq=after_seq, limit=1000)
        log += page["messages"]
        has_more = page["has_more"]
    return log


def cpu_s(server: Server) -> float:
    """Processor seconds of the server and its workers."""
    process = psutil.Process(server.pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


if __name__ == "__main__":
    sys.exit(main())
