"""The systems under proof: real server processes on SQLite and PostgreSQL, as operators start them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from prove.relay import RelayThread
from tests.cli.conftest import make_env
from tests.own_clock import OwnClock, build_own_clock
from tests.postgres import Cluster, open_cluster

API_KEY = "prove-api-key-0123456789abcdef"
ADMIN_API_KEY = "prove-admin-key-0123456789abcdef"
JWT_SECRET_KEY = "prove-jwt-secret-0123456789abcdef0123456789"
START_S = 120.0
POSTGRES_TIMEOUT_S = 3


@dataclass(frozen=True)
class Setup:
    """What is to be started. `processes`: workers on one SQLite file, or replicas on one PostgreSQL."""

    store: str
    processes: int
    synchronous: str = "NORMAL"

    @property
    def name(self) -> str:
        what = self.store if self.store == "PostgreSQL" else f"SQLite {self.synchronous}"
        return f"{what}, {self.processes} process{'es' if self.processes > 1 else ''}"


SETUPS = (
    Setup("SQLite", 1),
    Setup("SQLite", 3),
    Setup("SQLite", 1, "FULL"),
    Setup("SQLite", 3, "FULL"),
    Setup("PostgreSQL", 3),
)


class ServerProcess:
    """A server at an address that it keeps when it is started again."""

    def __init__(self, name: str, directory: Path, env: dict[str, str], workers: int = 1) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.name = name
        self._directory = directory
        self._log = directory / f"{name}.log"
        self._env = {
            **env,
            "DATA_DIR": str(directory / f"{name}-data"),
            "HTTP_PORT": str(self.port),
            "WORKERS": str(workers),
        }
        self._workers = workers
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def data_dir(self) -> Path:
        return Path(self._env["DATA_DIR"])

    def start(self) -> None:
        command = [sys.executable, "-m", "shared_context_server", "serve"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._env, cwd=self._directory, stdout=log, stderr=log
            )

    def find_serving(self) -> list[psutil.Process]:
        """Return the processes that answer: the workers, or the one process."""
        assert self._process is not None
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._process.pid)
            if self._workers == 1:
                return [root]
            for child in root.children():
                with suppress(psutil.NoSuchProcess):
                    if "forkserver" in " ".join(child.cmdline()):
                        return [
                            one for one in child.children() if one.status() != psutil.STATUS_ZOMBIE
                        ]
        return []

    def kill(self) -> None:
        """SIGKILL all of it, as the machine's end would."""
        if self._process is None:
            return
        family = [self._process.pid]
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(self._process.pid).children(recursive=True)
            family += [child.pid for child in children]
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        psutil.wait_procs([child for child in map(_find, family[1:]) if child], 10)
        self._process = None

    def wait_until_ready(self) -> None:
        """Raises RuntimeError if it ends, or takes too long."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            try:
                if httpx.get(f"{self.url}/ready", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise RuntimeError(f"{self.name} does not serve:\n{self.read_log()[-3000:]}")

    def read_log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


def _find(pid: int) -> psutil.Process | None:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid)
    return None


@dataclass
class System:
    """Running servers with one store. `database_url`: of PostgreSQL;
    `database_relay`: before it, for all servers but the first. `disk`: the small
    file system of the store, if it has one. `clock`: the servers' own, if they have one."""

    setup: Setup
    servers: list[ServerProcess]
    cluster: Cluster | None = None
    database_url: str = ""
    database_relay: RelayThread | None = None
    disk: Path | None = None
    clock: OwnClock | None = None

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers]

    def find_defects(self) -> list[str]:
        """Return what the logs say of defects of the program."""
        return [
            f"{server.name} logged a defect:\n{log[-3000:]}"
            for server in self.servers
            if "Traceback" in (log := server.read_log()) or "never retrieved" in log
        ]


@contextmanager
def open_system(
    setup: Setup,
    directory: Path,
    *,
    source: Path | None = None,
    disk: Path | None = None,
    has_clock: bool = False,
) -> Iterator[System]:
    """Start the servers of a set-up, and end them with the block.

    `source`: where the program is imported from, if not from this checkout. `disk`: where an SQLite
    file lies.
    """
    clock = build_own_clock(directory) if has_clock else None
    env = _environment(directory, source) | (clock.environment if clock else {})
    if setup.store == "SQLite":
        env |= {"SQLITE_SYNCHRONOUS": setup.synchronous}
        if disk is not None:
            env |= {"DATABASE_URL": f"sqlite:///{disk / 'shared_context.db'}"}
        servers = [ServerProcess("server", directory, env, setup.processes)]
        with _serving(System(setup, servers, disk=disk, clock=clock)) as system:
            yield system
        return
    with open_cluster(is_durable=True) as cluster:
        url = cluster.create_database("prove")
        env |= {"POSTGRES_TIMEOUT": str(POSTGRES_TIMEOUT_S), "POSTGRES_POOL_SIZE": "6"}
        relay = RelayThread(cluster.port)
        try:
            relayed = url.replace(f":{cluster.port}/", f":{relay.port}/")
            servers = []
            for number in range(setup.processes):
                reached = relayed if number else url  # one of them is never cut off
                name = f"replica-{number}"
                servers.append(ServerProcess(name, directory, env | {"DATABASE_URL": reached}))
            found = System(setup, servers, cluster, url, relay, clock=clock)
            with _serving(found) as system:
                yield system
        finally:
            relay.close()


@contextmanager
def _serving(system: System) -> Iterator[System]:
    try:
        for server in system.servers:
            server.start()
            server.wait_until_ready()  # one after the other: the first migrates the store
        yield system
    finally:
        for server in system.servers:
            server.kill()


def _environment(directory: Path, source: Path | None) -> dict[str, str]:
    env = make_env(directory)
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # else each start compiles all modules anew
    if source is not None:
        env |= {"PYTHONPATH": str(source), "SEARCH_INDEX": "false"}
    return env | {
        "API_KEY": API_KEY,
        "ADMIN_API_KEY": ADMIN_API_KEY,
        "JWT_SECRET_KEY": JWT_SECRET_KEY,
        "RATE_LIMIT": "off",
        "DISK_RESERVE_MB": "0",  # a disk is filled to its end here
        "LOG_FORMAT": "json",
    }


def has_compiler() -> bool:
    """Whether servers can have a clock of their own."""
    return shutil.which("cc") is not None
