"""Servers as operators start them, each a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from bench.app import API_KEY


@dataclass(frozen=True)
class Server:
    port: int
    pid: int


@contextlib.contextmanager
def serve(data_dir: str, *options: str, **settings: str) -> Iterator[Server]:
    """A server on a free port; `settings` are further ones of its environment."""
    fixed = {"API_KEY": API_KEY, "RATE_LIMIT": "off", "LOG_FORMAT": "json", "HTTP_PORT": "0"}
    command = [sys.executable, "-m", "shared_context_server", "serve", "--data-dir", data_dir]
    environment = os.environ | fixed | settings
    with subprocess.Popen(
        [*command, *options], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            serving = next(line for line in process.stderr if '"health"' in line)
            port = int(json.loads(serving)["health"].split(":")[-1].split("/")[0])
            yield Server(port, process.pid)
        finally:
            process.terminate()
            process.communicate()
