"""Real daemons, real segments, an NTP server on loopback that can be asked to lie, and system
clocks that can be set without setting the machine's."""

import os
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.own_clock import OwnClock, build_own_clock

NTP_EPOCH = 2_208_988_800
READY_WITHIN_S = 20.0


@pytest.fixture
def prefix() -> Iterator[str]:
    """A prefix of this test's own; what a killed daemon leaves under it is removed."""
    name = f"t{secrets.token_hex(6)}_"
    yield name
    for left in list_shared(name):
        left.unlink()


def list_shared(prefix: str) -> list[Path]:
    return sorted(Path("/dev/shm").glob(f"{prefix}*"))


@pytest.fixture
def shared_files(prefix: str) -> Callable[[], list[str]]:
    """The names of what lies in shared memory under the test's prefix, without the prefix."""
    return lambda: [path.name.removeprefix(prefix) for path in list_shared(prefix)]


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Wait for a state that announces itself by no event; fail when it does not come."""

    def wait(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, "what was waited for did not come"
            time.sleep(0.002)

    return wait


class Daemon:
    """One daemon process. `errors` is what it wrote to standard error."""

    def __init__(
        self, arguments: list[str], log: Path, cwd: Path, environment: dict[str, str]
    ) -> None:
        self._log = log
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # the tests run under nohup
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "shared_context_server.clock", *arguments],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=cwd,
                env=os.environ | environment,
            )

    @property
    def errors(self) -> str:
        return self._log.read_text()

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], READY_WITHIN_S)
        assert readable, "the daemon did not say that it is ready"
        line = self.process.stdout.readline()
        assert line.startswith("ready:"), self.errors

    def kill(self) -> None:
        """Kill -9."""
        self.process.kill()
        self.process.wait(timeout=20)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


@pytest.fixture
def start_daemon(prefix: str, tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Start a daemon of the test's prefix and wait until readers can attach."""
    daemons: list[Daemon] = []

    def start(
        *arguments: str, ready: bool = True, environment: dict[str, str] | None = None
    ) -> Daemon:
        log = tmp_path / f"daemon{len(daemons)}.log"
        daemon = Daemon(["--prefix", prefix, *arguments], log, tmp_path, environment or {})
        daemons.append(daemon)
        if ready:
            daemon.wait_ready()
        return daemon

    yield start
    for daemon in daemons:
        if daemon.process.poll() is None:
            daemon.kill()
        assert daemon.process.stdout is not None
        daemon.process.stdout.close()


class StubNtpServer:
    """Answers NTP on a port of 127.0.0.1; its attributes say how, also while it runs."""

    def __init__(self) -> None:
        self.offset_s = 0.0
        self.root_delay_s = 0.001
        self.root_dispersion_s = 0.002
        self.leap = 0
        self.mode = 4
        self.stratum = 2
        self.reference = b"LOCL"
        self.is_silent = False
        self.origin_shift_s = 0.0
        self.answers = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self._is_closing = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self._is_closing = True
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._is_closing:
            try:
                question, sender = self._socket.recvfrom(512)
            except TimeoutError:
                continue
            received_s = time.time() + self.offset_s
            if not self.is_silent:
                self._socket.sendto(self._answer(question, received_s), sender)
                self.answers += 1

    def _answer(self, question: bytes, received_s: float) -> bytes:
        head = struct.pack(
            "!BBbbII4s",
            self.leap << 6 | 4 << 3 | self.mode,
            self.stratum,
            6,
            -20,
            round(self.root_delay_s * 65536),
            round(self.root_dispersion_s * 65536),
            self.reference,
        )
        seconds, fraction = struct.unpack("!II", question[40:48])
        origin = struct.pack("!II", seconds + round(self.origin_shift_s), fraction)
        received = _to_ntp(received_s)
        return head + received + origin + received + _to_ntp(time.time() + self.offset_s)


def _to_ntp(unix_s: float) -> bytes:
    return struct.pack("!Q", int((unix_s + NTP_EPOCH) * 2**32))


@pytest.fixture
def start_ntp_server() -> Iterator[Callable[..., StubNtpServer]]:
    servers: list[StubNtpServer] = []

    def start(**attributes: object) -> StubNtpServer:
        server = StubNtpServer()
        servers.append(server)
        for name, value in attributes.items():
            assert hasattr(server, name)
            setattr(server, name, value)
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def make_own_clock(tmp_path: Path) -> Callable[[], OwnClock]:
    return lambda: build_own_clock(tmp_path)
