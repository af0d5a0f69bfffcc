"""Where the memory of an idle server comes from: what the process takes after each step of its start.

Run as a process of its own: `python -m bench.stages DATA_DIR` prints JSON.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.servers import warm_environment

STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("pydantic", ("pydantic",)),
    ("mcp_types, the models of MCP", ("mcp_types", "mcp_types.methods")),
    ("mcp, the SDK with its client, and cryptography and httpx2 that it brings", ("mcp",)),
    ("fastmcp", ("fastmcp.server.server", "fastmcp.server.http")),
    (
        "uvicorn, uvloop, httptools, aiosqlite, jwt",
        ("uvicorn", "uvloop", "httptools", "aiosqlite", "jwt"),
    ),
    ("cyclopts, for the command line", ("cyclopts",)),
    ("structlog, with rich and pygments", ("structlog",)),
    ("prometheus_client", ("prometheus_client",)),
    ("this package", ("shared_context_server.cli.serve", "shared_context_server.cli.http")),
)
OPENED = "an open server: schemas, connections, threads"


def measure(cache: Path, times: int) -> list[tuple[str, float]]:
    """RSS in MB after each step, medians of some processes; the first, which compiles, is not counted."""
    runs = [_run(cache) for _ in range(times + 1)][1:]
    return [
        (runs[0][index][0], round(statistics.median(run[index][1] for run in runs), 1))
        for index in range(len(runs[0]))
    ]


def _run(cache: Path) -> list[tuple[str, float]]:
    with tempfile.TemporaryDirectory() as data_dir:
        answer = subprocess.run(
            [sys.executable, "-m", "bench.stages", data_dir],
            env=warm_environment(cache),
            capture_output=True,
            text=True,
            check=True,
        )
    steps: list[tuple[str, float]] = [(name, mb) for name, mb in json.loads(answer.stdout)]
    return steps


def _rss_mb() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel does not say")


def _go_through(data_dir: str) -> Iterator[tuple[str, float]]:
    yield "the interpreter, with asyncio", _rss_mb()
    for name, modules in STEPS:
        for module in modules:
            importlib.import_module(module)
        yield name, _rss_mb()
    found: list[float] = []
    asyncio.run(_open(data_dir, found.append))
    yield OPENED, found[0]


async def _open(data_dir: str, note: Callable[[float], None]) -> None:
    from bench.app import bench_settings  # noqa: PLC0415 - what it imports is counted above
    from shared_context_server.server import open_server  # noqa: PLC0415

    async with open_server(bench_settings(Path(data_dir))):
        gc.collect()
        note(_rss_mb())


if __name__ == "__main__":
    print(json.dumps(list(_go_through(sys.argv[1]))))
