"""`clock`, and `serve --with-clock`: real daemons in shared memory."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from shared_context_server.clock import ClockError, ClockReader, SensorReader
from tests.cli.conftest import COMMAND, PATIENCE_S, STOP_S, Run, Serve
from tests.clock.daemons import list_shared, own_prefix

StartClock = Callable[..., AbstractContextManager[subprocess.Popen[str]]]


@pytest.fixture
def prefix() -> Iterator[str]:
    with own_prefix() as prefix:
        yield prefix


@pytest.fixture
def start_clock(env: dict[str, str], tmp_path: Path) -> StartClock:
    """`with start_clock(*arguments) as process`: a `clock` that readers can attach to."""

    @contextmanager
    def start(*arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [*COMMAND, "clock", *arguments],
            env=env | variables,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline().startswith("ready:")
                yield process
            finally:
                process.kill()

    return start


def wait_for_writer(prefix: str, is_wanted: Callable[[int], bool]) -> int:
    """The pid in a fresh record of the prefix, once there is one that is wanted."""
    deadline_s = time.monotonic() + PATIENCE_S
    with ClockReader(prefix) as clock:
        while time.monotonic() < deadline_s:
            try:
                if not clock.now().stale and is_wanted(pid := clock.read().pid):
                    return pid
            except ClockError:
                pass  # not yet
            time.sleep(0.005)
    raise AssertionError("the daemon that was waited for did not come")


def wait_until_nothing_is_shared(prefix: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while list_shared(prefix):
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_the_clock_keeps_time_until_a_signal_and_leaves_nothing(
    start_clock: StartClock, prefix: str
) -> None:
    options = ("--prefix", prefix, "--freq", "100", "--source", "simulated")
    with start_clock(*options) as process, ClockReader(prefix) as clock:
        assert abs(clock.now().time - time.time()) < 5
        record = clock.read()
        assert (record.tick_period_us, record.pid) == (10_000, process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_S) == 0
    assert list_shared(prefix) == []


def test_settings_are_the_clock_s_defaults(start_clock: StartClock, prefix: str) -> None:
    settings = {
        "CLOCK_PREFIX": prefix,
        "CLOCK_HZ": "50",
        "CLOCK_SOURCES": "psutil, simulated",
        "CLOCK_SENSOR_INTERVAL": "0.5",
    }
    with start_clock(**settings), ClockReader(prefix) as clock, SensorReader(prefix) as sensors:
        record = clock.read()
        assert (record.tick_period_us, record.sensor_interval_ms) == (20_000, 500)
        deadline_s = time.monotonic() + PATIENCE_S
        while (now := sensors.now()).memory is None or now.humidity is None:
            assert time.monotonic() < deadline_s
            time.sleep(0.005)
        assert now.simulated


def test_a_second_clock_of_a_prefix_refuses(start_clock: StartClock, scs: Run, prefix: str) -> None:
    with start_clock("--prefix", prefix) as first:
        second = scs("clock", "--prefix", prefix)
        assert second.returncode == 1
        assert f"pid {first.pid}" in second.stderr
        assert wait_for_writer(prefix, bool) == first.pid


@pytest.mark.parametrize(
    "arguments, named",
    [
        (("--hz", "0"), "CLOCK_HZ"),
        (("--prefix", "a/b"), "CLOCK_PREFIX"),
        (("--ntp", "kernel", "--ntp", "127.0.0.1"), "--ntp"),
        (("--source", "none", "--source", "psutil"), "--source"),
        (("--source", "thermometer"), "--source"),
    ],
)
def test_an_option_the_clock_cannot_use_is_named(
    scs: Run, arguments: tuple[str, ...], named: str
) -> None:
    answer = scs("clock", *arguments)
    assert answer.returncode == 2
    assert named in answer.stderr.splitlines()[-1]
    assert "Traceback" not in answer.stderr


def test_a_server_keeps_its_clock_running_and_ends_it(serve: Serve, prefix: str) -> None:
    with serve("--with-clock", "--clock-prefix", prefix) as server:
        first = wait_for_writer(prefix, bool)
        assert first != server.process.pid
        os.kill(first, signal.SIGKILL)
        second = wait_for_writer(prefix, lambda pid: pid != first)
        assert second != first
        assert server.stop() == 0
        assert list_shared(prefix) == []
    assert "the clock daemon has ended" in server.stderr


def test_the_clock_of_a_killed_server_ends_too(serve: Serve, prefix: str) -> None:
    with serve("--with-clock", CLOCK_PREFIX=prefix) as server:
        wait_for_writer(prefix, bool)
        server.process.kill()
        wait_until_nothing_is_shared(prefix)


def test_a_server_uses_another_s_clock_and_replaces_it_when_it_goes(
    serve: Serve, start_clock: StartClock, prefix: str
) -> None:
    with (
        start_clock("--prefix", prefix) as other,
        serve("--with-clock", CLOCK_PREFIX=prefix, is_ready=False) as server,
    ):
        said = {"another clock daemon serves this prefix", "/health"}  # in either order
        while said:
            said.remove(server.wait_for("|".join(said))[0])
        assert wait_for_writer(prefix, bool) == other.pid
        other.send_signal(signal.SIGTERM)
        assert other.wait(STOP_S) == 0
        assert wait_for_writer(prefix, lambda pid: pid != other.pid)
        assert server.stop() == 0
    assert list_shared(prefix) == []


def test_a_clock_that_cannot_run_stops_the_start(serve: Serve, prefix: str) -> None:
    with serve(
        "--with-clock", is_ready=False, CLOCK_PREFIX=prefix, CLOCK_NTP="kernel,127.0.0.1"
    ) as server:
        assert server.process.wait(PATIENCE_S) == 2
    assert "--ntp" in server.stderr.splitlines()[-1]


def test_a_source_the_clock_lacks_is_told_and_not_tried_again(serve: Serve, prefix: str) -> None:
    settings = {"CLOCK_PREFIX": prefix, "CLOCK_SOURCES": "thermometer"}
    with serve("--with-clock", is_ready=False, **settings) as server:
        server.wait_for("the clock daemon cannot run with these options")
    assert server.stderr.count("'thermometer' is not a source") == 1
