"""Tasks while workers, each a process, are killed: the small form of `make bench-tasks`."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from bench.keys import API_KEY
from bench.servers import Server
from bench.task_workers import Setup, run_processes
from tests.cli.conftest import Serve

PATIENCE_S = 100


async def test_each_task_is_done_once_though_workers_are_killed(serve: Serve) -> None:
    setup = Setup(tasks=30, workers=3, victims=1, seed=7)
    with serve(API_KEY=API_KEY, RATE_LIMIT="off") as server:
        port = urlsplit(server.url).port
        assert port is not None
        async with asyncio.timeout(PATIENCE_S):
            outcome = await run_processes(Server(port, server.process.pid), setup)
    assert outcome.faults == []
