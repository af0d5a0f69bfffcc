"""Tasks while workers, each a process, are killed: the small form of `make bench-tasks`."""

from __future__ import annotations

from pathlib import Path

from bench.servers import serve
from bench.task_workers import Setup, run_processes


async def test_each_task_is_done_once_though_workers_are_killed(tmp_path: Path) -> None:
    setup = Setup(tasks=30, workers=3, victims=1, seed=7)
    with serve(str(tmp_path), "--workers", "2") as server:
        outcome = await run_processes(server, setup)
    assert outcome.faults == []
