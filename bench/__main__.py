"""`make bench`: throughput, search and memory of a server started for the purpose."""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile

import httpx
import uvloop

from bench import footprint, searching, throughput


async def run(port: int, pid: int) -> None:
    async with httpx.AsyncClient() as client:
        (await client.get(f"http://127.0.0.1:{port}/health")).raise_for_status()
    idle_mb = footprint.rss_mb(pid)
    throughput.report(await throughput.measure(port))
    await searching.measure(port)
    footprint.report(idle_mb, footprint.rss_mb(pid))


def main() -> None:
    print(f"Python {platform.python_version()} on {platform.machine()}; one server process")
    with (
        tempfile.TemporaryDirectory() as data_dir,
        subprocess.Popen(
            [sys.executable, "-m", "bench.app", data_dir], stdout=subprocess.PIPE, text=True
        ) as server,
    ):
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            uvloop.run(run(port, server.pid))
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
