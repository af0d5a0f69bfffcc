"""Against Debian's chronyd on loopback, told to leave the system clock alone. Skipped without it.

A chronyd that lies is one whose own system clock is ahead.
"""

import getpass
import os
import shutil
import socket
import subprocess
import time

import pytest

from shared_context_server.clock import ClockReader
from shared_context_server.clock.errors import TimeServerError
from shared_context_server.clock.timesync.exchange import ServerAddress, query_server

CHRONYD = shutil.which("chronyd", path="/usr/sbin:/usr/bin")

pytestmark = pytest.mark.skipif(CHRONYD is None, reason="needs chronyd (Debian: chrony)")


@pytest.fixture
def start_chronyd(tmp_path, wait_until):
    """Start a chronyd that serves the machine's time, or that of another system clock."""
    processes = []

    def start(environment: dict[str, str] | None = None) -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = tmp_path / f"chrony{port}.conf"
        config.write_text(
            f"port {port}\nbindaddress 127.0.0.1\nallow 127.0.0.1\nlocal stratum 3\ncmdport 0\n"
            f"bindcmdaddress {tmp_path}/chrony{port}.sock\npidfile {tmp_path}/chrony{port}.pid\n"
        )
        command = [CHRONYD, "-x", "-d", "-U", "-u", getpass.getuser(), "-f", str(config)]
        log = (tmp_path / f"chrony{port}.log").open("w")
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | (environment or {})
        )
        processes.append((process, log))
        wait_until(lambda: answers(port))
        return f"127.0.0.1:{port}"

    yield start
    for process, log in processes:
        process.terminate()
        process.wait(timeout=20)
        log.close()


def answers(port: int) -> bool:
    try:
        query_server(ServerAddress("127.0.0.1", port))
    except TimeServerError:
        return False
    return True


def test_the_bound_of_a_clock_that_follows_chronyd_holds_the_truth(
    prefix, start_chronyd, start_daemon, wait_until
):
    start_daemon("--source", "none", "--ntp", start_chronyd(), "--ntp-interval", "0.2")
    with ClockReader(prefix) as clock:
        wait_until(lambda: clock.now().synchronized)
        for _ in range(1000):
            before_s, reading, after_s = time.time(), clock.now(), time.time()
            assert reading.earliest <= after_s
            assert reading.latest >= before_s
        assert reading.latest - reading.earliest < 0.5


def test_a_lying_chronyd_among_three_is_outvoted(
    prefix, start_chronyd, start_daemon, wait_until, make_own_clock
):
    own_clock = make_own_clock()
    own_clock.set_ahead(7)
    liar = start_chronyd(own_clock.environment)
    servers = [liar, start_chronyd(), start_chronyd()]
    arguments = [word for server in servers for word in ("--ntp", server)]
    daemon = start_daemon("--source", "none", "--ntp-interval", "0.2", *arguments)
    with ClockReader(prefix) as clock:
        wait_until(lambda: clock.now().synchronized)
        wait_until(lambda: f"outvoted: {liar}" in daemon.errors)
        before_s, reading, after_s = time.time(), clock.now(), time.time()
    assert reading.earliest <= after_s
    assert reading.latest >= before_s
    assert abs(reading.time - after_s) < 0.5
