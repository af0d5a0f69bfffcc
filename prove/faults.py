"""What is done to a system while agents use it; a seed chooses what comes when."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import urlsplit

import asyncpg
import psutil

from prove.clients import Run
from prove.history import Fault
from prove.relay import Relay
from prove.systems import System

FREEZE_S = (2.5, 4.0)
"""Longer than the leases of the traffic last."""

AWAY_S = (0.5, 1.5)
RECOVERY_S = 60.0
_STEP_S = 3600
_BLOCK_BYTES = 1 << 16

Act = Callable[[], Awaitable[str]]


class Faults:
    """The faults that fit a system. Each ends with the system as it was before."""

    def __init__(self, system: System, run: Run, relays: list[Relay], chooser: random.Random):
        self._system = system
        self._run = run
        self._relays = relays
        self._chooser = chooser
        self._idle: list[socket.socket] = []
        self.kinds: dict[str, Act] = {
            "kill a process": self._kill_process,
            "kill a server": self._kill_server,
            "freeze a process": self._freeze_process,
            "cut connections": self._cut_connections,
            "hold up connections": self._hold_connections,
            "a client that never reads": self._never_read,
        }
        if system.setup.processes == 1 or system.setup.store == "PostgreSQL":
            del self.kinds["kill a process"]  # it is the server
        if system.cluster is not None:
            self.kinds |= {
                "restart the database": self._restart_database,
                "kill the database": self._kill_database,
                "freeze the database": self._freeze_database,
                "hold locks in an idle transaction": self._hold_locks,
            }
        if system.database_relay is not None:
            self.kinds["cut connections to the database"] = self._cut_from_database
        if system.disk is not None:
            self.kinds["fill the disk"] = self._fill_disk
        if system.clock is not None:
            self.kinds["set the clock back and on again"] = self._step_clock

    async def run(self, until: float, pause_s: tuple[float, float]) -> None:
        """One after the other until a time: first each kind once, then as it comes."""
        order = list(self.kinds)
        self._chooser.shuffle(order)
        while True:
            pause = self._chooser.uniform(*pause_s)
            if time.monotonic() + pause > until:
                return
            await asyncio.sleep(pause)
            name = order.pop() if order else self._chooser.choice(list(self.kinds))
            await self.do(name)

    async def do(self, name: str) -> None:
        """Do one fault, and wait until all servers are ready again."""
        fault = Fault(name, time.monotonic())
        self._run.history.faults.append(fault)
        fault.target = await self.kinds[name]()
        await self._recover()
        fault.ended_at = time.monotonic()

    def close(self) -> None:
        for connection in self._idle:
            connection.close()

    async def _recover(self) -> None:
        for server in self._system.servers:
            await asyncio.to_thread(server.wait_until_ready)

    async def _kill_process(self) -> str:
        """A worker, which its supervisor replaces."""
        process = await self._choose_process()
        process.kill()
        return str(process.pid)

    async def _choose_process(self) -> psutil.Process:
        async with asyncio.timeout(RECOVERY_S):
            while True:
                serving = self._chooser.choice(self._system.servers).find_serving()
                if serving:
                    return self._chooser.choice(serving)
                await asyncio.sleep(0.1)

    async def _kill_server(self) -> str:
        server = self._chooser.choice(self._system.servers)
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(self._chooser.uniform(*AWAY_S))
        server.start()
        return server.name

    async def _freeze_process(self) -> str:
        """Until leases have expired. What it has in hand it does afterwards."""
        process = await self._choose_process()
        with suppress(psutil.NoSuchProcess):
            process.suspend()
            try:
                await asyncio.sleep(self._chooser.uniform(*FREEZE_S))
            finally:
                process.resume()
        return str(process.pid)

    async def _cut_connections(self) -> str:
        cut = 0
        for _ in range(self._chooser.randint(2, 6)):
            used = [relay for relay in self._relays if relay.is_used]
            cut += self._chooser.choice(used or self._relays).cut()
            await asyncio.sleep(self._chooser.uniform(0.05, 0.4))
        return f"{cut} connections"

    async def _cut_from_database(self) -> str:
        relay = self._system.database_relay
        assert relay is not None
        cut = 0
        for _ in range(self._chooser.randint(2, 6)):
            cut += await asyncio.to_thread(relay.cut)
            await asyncio.sleep(self._chooser.uniform(0.05, 0.4))
        return f"{cut} ends of connections"

    async def _hold_connections(self) -> str:
        relay = self._chooser.choice(self._relays)
        relay.hold()
        try:
            await asyncio.sleep(self._chooser.uniform(*FREEZE_S))
        finally:
            relay.cut()
            relay.flow()
        return relay.url

    async def _never_read(self) -> str:
        """Streams and requests whose answers nobody takes; they stay until the end of the run."""
        for server in self._system.servers:
            for _ in range(5):
                connection = socket.create_connection(("127.0.0.1", server.port), 10)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                lines = [
                    "GET /events HTTP/1.1",
                    f"Host: 127.0.0.1:{server.port}",
                    f"X-API-Key: {self._run.api_key}",
                    "X-Agent-ID: sleeper",
                    "Last-Event-ID: 0",
                ]
                connection.sendall("\r\n".join([*lines, "", ""]).encode())
                self._idle.append(connection)
        return f"{len(self._idle)} streams"

    async def _restart_database(self) -> str:
        cluster = self._system.cluster
        assert cluster is not None
        await asyncio.to_thread(cluster.stop)
        await asyncio.sleep(self._chooser.uniform(*AWAY_S))
        await asyncio.to_thread(cluster.start)
        return "fast shutdown"

    async def _kill_database(self) -> str:
        cluster = self._system.cluster
        assert cluster is not None
        await asyncio.to_thread(cluster.kill)
        await asyncio.to_thread(cluster.start)
        return "SIGKILL"

    async def _freeze_database(self) -> str:
        cluster = self._system.cluster
        assert cluster is not None
        await asyncio.to_thread(cluster.freeze)
        try:
            await asyncio.sleep(self._chooser.uniform(*FREEZE_S))
        finally:
            await asyncio.to_thread(cluster.thaw)
        return "SIGSTOP"

    async def _hold_locks(self) -> str:
        """A transaction of somebody else that has written and does nothing more for a while."""
        connection = await asyncpg.connect(self._system.database_url)
        try:
            transaction = connection.transaction()
            await transaction.start()
            locked = await connection.fetch("SELECT id FROM sessions LIMIT 3 FOR UPDATE")
            await asyncio.sleep(self._chooser.uniform(*FREEZE_S))
            await transaction.rollback()
        finally:
            await connection.close()
        return f"rows of {len(locked)} sessions"

    async def _fill_disk(self) -> str:
        assert self._system.disk is not None
        ballast = self._system.disk / "ballast"
        size = await asyncio.to_thread(_fill, str(ballast))
        try:
            await asyncio.sleep(self._chooser.uniform(*FREEZE_S))
        finally:
            ballast.unlink()
        return f"{size} bytes"

    async def _step_clock(self) -> str:
        clock = self._system.clock
        assert clock is not None
        clock.set_ahead(-_STEP_S)
        await asyncio.sleep(self._chooser.uniform(*FREEZE_S))
        clock.set_ahead(0)
        return f"{_STEP_S} s"


def _fill(path: str) -> int:
    """Write until nothing more fits."""
    size = 0
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        block = _BLOCK_BYTES
        while block:
            try:
                size += os.write(descriptor, bytes(block))
            except OSError:
                block //= 2
    finally:
        os.close(descriptor)
    return size


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port
