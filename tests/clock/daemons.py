"""A clock daemon in a process of its own, for tests of what stands on it."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def own_prefix() -> Iterator[str]:
    """A prefix of one test's own; what a killed daemon leaves under it is removed."""
    prefix = f"t{secrets.token_hex(6)}_"
    try:
        yield prefix
    finally:
        for left in list_shared(prefix):
            left.unlink()


def list_shared(prefix: str) -> list[Path]:
    return sorted(Path("/dev/shm").glob(f"{prefix}*"))


@contextmanager
def run_daemon_process(prefix: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The daemon once readers can attach, with made-up temperature and humidity and nothing else."""
    command = [sys.executable, "-m", "shared_context_server.clock", "--prefix", prefix]
    with subprocess.Popen(
        [*command, "--source", "simulated", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ready:")
            yield process
        finally:
            process.terminate()


def unmeasured() -> dict[str, str]:
    """The environment of a process in which coverage, which imports much, is not to start."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
