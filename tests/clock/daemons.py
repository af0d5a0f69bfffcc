"""A clock daemon in a process of its own, for tests of what stands on it."""

from __future__ import annotations

import os
import secrets
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shared_context_server.clock import SegmentWriter
from shared_context_server.clock.layout import CLOCK_LAYOUT, SENSOR_LAYOUT
from shared_context_server.clock.writer_lock import WriterLock

ROOT = Path(__file__).parents[2]


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


def open_segment(name: str) -> SegmentWriter:
    """A writer of the clock's or the sensors' segment of this name, as a daemon opens it that holds
    the lock."""
    layout = next(layout for layout in (CLOCK_LAYOUT, SENSOR_LAYOUT) if name.endswith(layout.name))
    prefix = name.removesuffix(layout.name)
    return SegmentWriter(layout, prefix, lock=WriterLock(prefix, layout.lock_name))


WRITE_WITHOUT_REST = """
import os, sys, time
from shared_context_server.clock.layout import encode_clock, encode_sensors
from tests.clock.daemons import open_segment
segment = open_segment(sys.argv[1])
while True:
    now_ns = time.monotonic_ns()
    if sys.argv[1].endswith("time_daemon_shm"):
        record = encode_clock(
            time_s=time.time(), last_sync_s=0.0, flags=1, monotonic_ns=now_ns, offset_s=0.0,
            error_bound_s=0.25, pid=os.getpid(), tick_period_us=1000, sensor_interval_ms=1000,
        )
    else:
        record = encode_sensors(temperature_c=21.0, monotonic_ns=now_ns, pid=os.getpid())
    for _ in range(1000):
        segment.write_record(record)
"""


@contextmanager
def run_restless_writer(segment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing but write records to `segment`; killed at the end.

    A daemon is in the middle of a write for a tenth of a microsecond in each millisecond, this one
    for much of its time: so it can be stopped there.
    """
    with subprocess.Popen([sys.executable, "-c", WRITE_WITHOUT_REST, segment], cwd=ROOT) as process:
        try:
            wait_for(lambda: is_written(segment), "the writer did not begin")
            yield process
        finally:
            process.kill()


def is_written(segment: str) -> bool:
    path = Path("/dev/shm") / segment
    return path.exists() and path.stat().st_size >= 64 and path.read_bytes()[16:20] != bytes(4)


def stop_within_a_write(process: subprocess.Popen[bytes], segment: str) -> None:
    """Freeze the writer (SIGSTOP) where the sequence number is odd."""

    def is_stopped_there() -> bool:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        if read_sequence(segment) & 1:
            return True
        process.send_signal(signal.SIGCONT)
        return False

    wait_for(is_stopped_there, "the writer was never met in the middle of a write")


def read_sequence(segment: str) -> int:
    (sequence,) = struct.unpack("<I", (Path("/dev/shm") / segment).read_bytes()[16:20])
    return int(sequence)


def wait_for(condition: Callable[[], bool], failure: str) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s, failure
        time.sleep(0.001)


def unmeasured() -> dict[str, str]:
    """The environment of a process in which coverage, which imports much, is not to start."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
