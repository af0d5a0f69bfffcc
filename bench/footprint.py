"""Memory of an idle server beside a process that only imports the stack it stands on."""

from __future__ import annotations

import subprocess
import sys

import psutil

IMPORTS = "import fastmcp, fastmcp.server.http, uvicorn, uvloop, httptools, pydantic, aiosqlite, rapidfuzz, jwt"


def rss_mb(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / 1_048_576


def importing_mb() -> float:
    """RSS of a Python process once it has imported the stack."""
    code = f"{IMPORTS}; print('ready', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        measured = rss_mb(process.pid)
        process.communicate(b"\n")
    return measured


def report(idle_mb: float, loaded_mb: float) -> None:
    base = importing_mb()
    print("\nMemory (RSS)")
    print(
        f"  importing the stack {base:.0f} MB, idle server {idle_mb:.0f} MB, after the load {loaded_mb:.0f} MB"
    )
    print(f"  idle / importing: {idle_mb / base:.2f}x   (bar: at most 1.25x)")
