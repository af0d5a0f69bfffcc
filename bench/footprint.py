"""How soon a fresh server is ready and how much memory it takes while idle, beside a process that only
imports the stack it stands on."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from bench.servers import serve, warm_environment

# `import fastmcp` alone imports none of its server; in our process FastMCP is the first thing that is made.
IMPORTS = "from fastmcp import FastMCP; import fastmcp.server.http, uvicorn, uvloop, httptools, pydantic, aiosqlite, rapidfuzz, jwt"
QUIET_S = 1.0  # a server that has used no processor time for so long is idle
PATIENCE_S = 30.0
LOOKS_A_SECOND = 10


@dataclass
class Started:
    """Of some fresh processes of one kind, one entry each; `cpu_s` until it was ready."""

    name: str
    ready_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    pss_mb: list[float] = field(default_factory=list)

    def note(self, ready_s: float, process: psutil.Process) -> None:
        """Take down what a process shows that is ready, once it is idle."""
        times = process.cpu_times()
        self.ready_s.append(ready_s)
        self.cpu_s.append(times.user + times.system)
        wait_until_idle(process)
        memory = process.memory_full_info()
        self.rss_mb.append(memory.rss / 1_048_576)
        self.pss_mb.append(memory.pss / 1_048_576)

    def medians(self) -> dict[str, float]:
        return {
            name: round(statistics.median(getattr(self, name)), 3)
            for name in ("ready_s", "cpu_s", "rss_mb", "pss_mb")
        }


def rss_mb(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / 1_048_576


def wait_until_idle(process: psutil.Process) -> None:
    """Until the process has used at most one tick of processor time in QUIET_S; PATIENCE_S at most."""
    deadline = time.monotonic() + PATIENCE_S
    before = sum(process.cpu_times()[:2])
    while time.monotonic() < deadline:
        time.sleep(QUIET_S)
        after = sum(process.cpu_times()[:2])
        if after - before <= 0.011:
            return
        before = after


def measure(
    sources: dict[str, Path | None],
    cache: Path,
    *,
    times: int,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Started]:
    """Start servers of these sources, by name, and processes that import the stack, in turns. A first
    start of each, which compiles, is not counted."""
    stack = Started("importing the stack")
    servers = [Started(name) for name in sources]
    for number in range(times + 1):
        for started, source in zip(servers, sources.values(), strict=True):
            _start_server(
                started if number else Started(started.name), warm_environment(cache, source)
            )
        _import_stack(stack if number else Started(""), warm_environment(cache))
        if number:
            tell(f"start {number} of {times}")
    return [stack, *servers]


def _start_server(started: Started, environment: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as data_dir:
        began = time.perf_counter()
        with serve(data_dir, environment=environment, is_limited=True) as server:
            httpx.get(f"http://127.0.0.1:{server.port}/ready").raise_for_status()
            started.note(time.perf_counter() - began, psutil.Process(server.pid))


def _import_stack(started: Started, environment: dict[str, str]) -> None:
    code = f"{IMPORTS}; print('ready', flush=True); input()"
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        started.note(time.perf_counter() - began, psutil.Process(process.pid))
        process.communicate(b"\n")
