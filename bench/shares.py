"""What the server's processor time goes to on some paths: samples of a server under load."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
import time
from pathlib import Path

from bench.load import run_load
from bench.servers import Server, serve, warm_environment
from bench.throughput import CONNECTIONS, Target, make_targets

REPOSITORY = Path(__file__).parents[1]
KEYS = ("rest add_message", "handshake add_message", "sdk add_message", "rest get_messages")
SMALL = 0.01  # parts below are summed up
PATIENCE_S = 10.0
LOOK_S = 0.02


async def measure(cache: Path, seconds: float) -> dict[str, dict[str, float]]:
    """Part of the program to its share, by path."""
    shares: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as data_dir, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "samples.json"
        with serve(
            data_dir,
            program=("bench.sampled", str(file)),
            environment=warm_environment(cache, REPOSITORY),
        ) as server:
            targets = {target.key: target for target in await make_targets(server)}
            for key in KEYS:
                counts = await _sample(server, targets[key], file, seconds)
                shares[targets[key].name] = sum_up(counts)
    return shares


async def _sample(server: Server, target: Target, file: Path, seconds: float) -> dict[str, int]:
    await run_load(server.port, target.request, connections=CONNECTIONS, seconds=seconds / 4)
    os.kill(server.pid, signal.SIGUSR1)
    await run_load(server.port, target.request, connections=CONNECTIONS, seconds=seconds)
    os.kill(server.pid, signal.SIGUSR2)
    deadline = time.monotonic() + PATIENCE_S
    while not file.exists():
        if time.monotonic() > deadline:
            raise TimeoutError("The server did not write its samples.")
        await asyncio.sleep(LOOK_S)
    counts: dict[str, int] = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    return counts


def sum_up(counts: dict[str, int]) -> dict[str, float]:
    """The shares of the parts, the small ones as one."""
    total = sum(counts.values()) or 1
    shares = {part: count / total for part, count in counts.items()}
    kept = {part: round(share, 4) for part, share in shares.items() if share >= SMALL}
    rest = 1 - sum(kept.values())
    return kept | ({"other": round(rest, 4)} if rest > 0.0005 else {})
