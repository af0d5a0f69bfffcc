"""Replicas on one PostgreSQL under agents, while one of them and then the database fail:
`make soak-replicas`. Exits with 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import uvloop

from bench.keys import API_KEY
from bench.soak_clients import (
    REPLICAS,
    REQUEST_TIMEOUT_S,
    Agent,
    Caller,
    Record,
    Waiter,
    waiter_name,
)
from tests.postgres import Cluster, open_cluster

SESSIONS = 5
POSTGRES_TIMEOUT_S = 5
START_S = 60.0
CATCH_UP_S = 60.0
SETTLED_S = 2.0  # after a fault's last error things are as ever


class Replica:
    """A server process on a port of its own, which it keeps when it is started again."""

    def __init__(self, name: str, database_url: str, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._log = directory / f"{name}.log"
        self._env = os.environ | {
            "DATABASE_URL": database_url,
            "DATA_DIR": str(directory / name),
            "HTTP_PORT": str(self.port),
            "API_KEY": API_KEY,
            "ADMIN_API_KEY": "soak-admin-key-0123456789abcdef",
            "JWT_SECRET_KEY": "soak-jwt-secret-0123456789abcdef0123456789",
            "RATE_LIMIT": "off",
            "LOG_FORMAT": "json",
            "POSTGRES_TIMEOUT": str(POSTGRES_TIMEOUT_S),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "shared_context_server", "serve"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=self._env, stdout=log, stderr=log)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(START_S)

    def read_log(self) -> str:
        return self._log.read_text(errors="replace")

    async def wait_until_ready(self, client: httpx.AsyncClient) -> None:
        async with asyncio.timeout(START_S):
            while True:
                try:
                    if (await client.get("/ready")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)


@dataclass
class Fault:
    """Something done to the system; `felt` is between the first and the last error of a client."""

    name: str
    at: float
    errors: list[tuple[float, bool, str]] = field(default_factory=list)

    def felt_s(self, *, by_waiters: bool) -> float:
        times = [at for at, is_waiter, _ in self.errors if is_waiter is by_waiters]
        return max(times) - min(times) if times else 0.0

    @property
    def last_error_at(self) -> float:
        return max((at for at, _, _ in self.errors), default=self.at)


@dataclass
class Soak:
    options: argparse.Namespace
    cluster: Cluster
    replicas: list[Replica]
    clients: list[httpx.AsyncClient]
    record: Record = field(default_factory=Record)
    faults: list[Fault] = field(default_factory=list)

    async def disturb(self, started: float) -> None:
        """Kill a replica at a third of the time, start it again at half of it, and take the
        database away at two thirds."""
        seconds = self.options.seconds
        last = self.replicas[-1]
        await self._do_at(started + seconds / 3, "a replica is killed", last.kill)
        await self._do_at(started + seconds / 2, "it is started again", last.start)
        kill_or_stop = self.cluster.kill if self.options.kill_database else self.cluster.stop
        name = "killed" if self.options.kill_database else "stopped"

        def restart() -> None:
            kill_or_stop()
            self.cluster.start()

        what = f"the database is {name} and started"
        await self._do_at(started + seconds * 2 / 3, what, restart)
        print(f"  the database was away for {time.monotonic() - self.faults[-1].at:.2f} s")

    async def _do_at(self, at: float, name: str, act: Callable[[], None]) -> None:
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        self.faults.append(Fault(name, time.monotonic()))
        await asyncio.to_thread(act)


async def run(options: argparse.Namespace, cluster: Cluster, directory: Path) -> list[str]:
    """The promises that were broken."""
    cluster.execute("CREATE DATABASE soak")
    url = cluster.url("soak")
    replicas = [Replica(f"replica-{number}", url, directory) for number in range(REPLICAS)]
    try:
        async with open_clients(replicas) as clients:
            for replica, client in zip(replicas, clients, strict=True):
                replica.start()
                await replica.wait_until_ready(client)
            soak = Soak(options, cluster, replicas, clients)
            broken = await run_clients(soak, url)
        if [code for code in [replica.stop() for replica in replicas] if code]:
            broken.append("a replica did not end well")
    finally:
        for replica in replicas:
            replica.kill()
    for replica in replicas:
        if "Traceback" in (log := replica.read_log()) or "never retrieved" in log:
            broken.append(f"a replica logged a defect:\n{log[-4000:]}")
    return broken


@asynccontextmanager
async def open_clients(replicas: list[Replica]) -> AsyncIterator[list[httpx.AsyncClient]]:
    limits = httpx.Limits(max_connections=500, max_keepalive_connections=500)
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=replica.url, timeout=REQUEST_TIMEOUT_S, limits=limits)
            )
            for replica in replicas
        ]


async def run_clients(soak: Soak, database_url: str) -> list[str]:
    record, clients = soak.record, soak.clients
    first = Caller(record, clients, 0, "creator")
    sessions: list[str] = []
    for number in range(SESSIONS):
        made = await first.call("create_session", purpose=f"soak {number}")
        assert made is not None
        sessions.append(made["session_id"])
    waiters = [
        Waiter(Caller(record, clients, replica, waiter_name(replica, place)), session_id)
        for replica in range(REPLICAS)
        for place, session_id in enumerate(sessions)
    ]
    agents = [
        Agent(
            Caller(record, clients, number % REPLICAS, f"agent-{number}"),
            record,
            sessions,
            number,
            soak.options.pause,
        )
        for number in range(soak.options.agents)
    ]
    waiting = [asyncio.create_task(waiter.run()) for waiter in waiters]
    started = time.monotonic()
    writing = [asyncio.create_task(agent.run()) for agent in agents]
    await soak.disturb(started)
    await asyncio.sleep(max(0.0, started + soak.options.seconds - time.monotonic()))
    for agent in agents:
        agent.is_over = True
    async with asyncio.timeout(CATCH_UP_S):
        await asyncio.gather(*writing)
    ended = time.monotonic()
    broken = await verify(soak, database_url, sessions, waiters)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    report(soak, waiters, ended - started)
    return broken


async def verify(
    soak: Soak, database_url: str, sessions: list[str], waiters: list[Waiter]
) -> list[str]:
    """What the database holds against what clients were told."""
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch(
        "SELECT session_id, seq, content, visibility, recipients, metadata FROM messages"
        " ORDER BY session_id, seq"
    )
    counter = await connection.fetchval("SELECT value FROM memory WHERE key = 'counter'")
    await connection.close()
    written, times = soak.record.written, Counter(row["content"] for row in rows)
    kept = {row["content"]: (row["session_id"], row["seq"]) for row in rows}
    lost = [
        content
        for content, message in written.items()
        if kept.get(content) != (message.session_id, message.seq)
    ]
    doubled = [content for content, count in times.items() if count > 1]
    unacknowledged = [content for content in kept if content not in written]
    gaps = [
        session_id
        for session_id in sessions
        if [row["seq"] for row in rows if row["session_id"] == session_id]
        != list(range(1, sum(row["session_id"] == session_id for row in rows) + 1))
    ]
    print(
        f"  acknowledged {len(written)}, lost {len(lost)}, doubled {len(doubled)}, in the database"
        f" and not acknowledged {len(unacknowledged)}, sessions with a gap {len(gaps)}"
    )
    print(f"  increments acknowledged {soak.record.increments}, the counter says {counter}")
    broken = ["messages were lost, doubled or left a gap"] if lost or doubled or gaps else []
    if unacknowledged:
        broken.append("a message was written that nobody was told of")
    if json.loads(counter) != soak.record.increments:
        broken.append("the counter is wrong")
    broken += check_leases(soak.record, rows)
    broken += await check_waiters(waiters, rows)
    if soak.record.unexpected:
        broken.append(f"answers that no fault explains: {dict(soak.record.unexpected)}")
    return broken


def check_leases(record: Record, rows: list[asyncpg.Record]) -> list[str]:
    """A token has one holder, and nothing was written under one once a later one had written."""
    newest: dict[str, int] = {}
    late = 0
    for row in rows:
        fenced = json.loads(row["metadata"] or "{}").get("fenced")
        if fenced is not None:
            name, token = fenced["lease"], fenced["fencing_token"]
            late += token < newest.get(name, 0)
            newest[name] = max(token, newest.get(name, 0))
    shared = sum(len(holders) > 1 for holders in record.holders.values())
    print(
        f"  leases taken {len(record.holders)}, tokens with two holders {shared}, late writes"
        f" accepted {late}, refused {record.leases_lost}"
    )
    return ["a lease had two holders"] if shared or late else []


async def check_waiters(waiters: list[Waiter], rows: list[asyncpg.Record]) -> list[str]:
    wrong = seen = 0
    for waiter in waiters:
        visible = [
            (row["seq"], row["content"])
            for row in rows
            if row["session_id"] == waiter.session_id
            and (row["visibility"] == "public" or waiter.agent_id in json.loads(row["recipients"]))
        ]
        await waiter.wait_until_seen(len(visible), CATCH_UP_S)
        seen += len(visible)
        wrong += [(seq, content) for seq, content, _ in waiter.seen] != visible
    print(
        f"  waiters {len(waiters)}, messages to see {seen}, waiters that missed one, saw one twice,"
        f" out of order or not theirs {wrong}"
    )
    return ["a waiter saw something else than what is there"] if wrong else []


def report(soak: Soak, waiters: list[Waiter], seconds: float) -> None:
    record, faults = soak.record, soak.faults
    print(f"  messages acknowledged per second {len(record.written) / seconds:.0f}")
    for number, fault in enumerate(faults):
        until = faults[number + 1].at if number + 1 < len(faults) else float("inf")
        fault.errors = [error for error in record.errors if fault.at <= error[0] < until]
        kinds = dict(Counter(kind for _, _, kind in fault.errors).most_common())
        print(f"  {fault.name}: errors {kinds or 'none'}")
        print(
            f"    felt for {fault.felt_s(by_waiters=False):.2f} s by agents, who go to another"
            f" replica, and {fault.felt_s(by_waiters=True):.2f} s by waiters, who stay"
        )
    others = [error for error in record.errors if not faults or error[0] < faults[0].at]
    print(f"  errors before the first fault {len(others)}")
    wakes = [wake for waiter in waiters for wake in waiter.wakes(record.written)]
    spans = [(fault.at, fault.last_error_at + SETTLED_S) for fault in faults if fault.errors]
    calm = [
        (message, at)
        for message, at in wakes
        if not any(begin <= at and message.sent_at <= end for begin, end in spans)
    ]
    for which, chosen in (("all", wakes), ("but those under way in a fault", calm)):
        print(f"  news at waiters of another replica, {which}: {len(chosen)}")
        print_times("after the message was sent", [at - one.sent_at for one, at in chosen])
        print_times("after it was acknowledged", [at - one.answered_at for one, at in chosen])


def print_times(which: str, taken: list[float]) -> None:
    if len(taken) > 1:
        cuts: Any = statistics.quantiles(taken, n=100)
        print(f"    {which}: p50 {cuts[49] * 1000:.0f} ms   p99 {cuts[98] * 1000:.0f} ms")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument(
        "--pause",
        type=float,
        default=0.5,
        help="between the calls of an agent, s; 0: at full speed",
    )
    parser.add_argument("--kill-database", action="store_true", help="kill -9, not a fast stop")
    options = parser.parse_args()
    print(
        f"{REPLICAS} replicas, {options.agents} agents, {options.seconds:.0f} s,"
        f" {options.pause} s between the calls of an agent,"
        f" {os.cpu_count()} processors for all, fsync on"
    )
    with (
        tempfile.TemporaryDirectory() as directory,
        open_cluster(is_durable=True) as cluster,
    ):
        broken = uvloop.run(run(options, cluster, Path(directory)))
    for promise in broken:
        print(f"BROKEN: {promise}")
    print("all promises kept" if not broken else f"{len(broken)} promises broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
