"""What the clock costs, beside the usual ways to get the time. One run, one table.

    python -m bench.clock [--json] [--seconds 10]

Every section is a function that is given a running daemon and returns rows. The daemon under test
runs at 1000 Hz with psutil as its source.
"""

import argparse
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil

from shared_context_server.clock import ClockReader, SensorReader

HZ = 1000
BLOCK = 1000
BLOCKS = 60
SINGLE_CALLS = 50_000
CONCURRENT_READERS = 10


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, and figures by name with their unit in it."""

    name: str
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """The daemon that is measured."""

    prefix: str
    pid: int
    seconds: float


Section = Callable[[Target], list[Row]]


def time_calls(call: Callable[[], object]) -> dict[str, float]:
    """Median ns of a call within blocks of 1000, and p99 of single calls less the timer's cost."""
    blocks = []
    for _ in range(BLOCKS):
        started_ns = time.perf_counter_ns()
        for _ in range(BLOCK):
            call()
        blocks.append((time.perf_counter_ns() - started_ns) / BLOCK)
    loop_ns = _time_empty_loop()
    singles = _time_singly(call, SINGLE_CALLS)
    timer_ns = statistics.median(_time_singly(lambda: None, 10_000)) - loop_ns
    return {
        "median_ns": statistics.median(blocks) - loop_ns,
        "p99_ns": _percentile(singles, 0.99) - timer_ns,
    }


def measure_reads(target: Target) -> list[Row]:
    clock, sensors = ClockReader(target.prefix), SensorReader(target.prefix)
    attach, first = [], []
    for _ in range(500):
        started_ns = time.perf_counter_ns()
        fresh = ClockReader(target.prefix)
        fresh.read()
        attached_ns = time.perf_counter_ns()
        fresh.now()
        first.append(time.perf_counter_ns() - attached_ns)
        attach.append(attached_ns - started_ns)
    with open_time_server() as ask:
        return [
            Row("attach and read", {"median_ns": statistics.median(attach)}),
            Row("first now() after it", {"median_ns": statistics.median(first)}),
            Row("ClockReader.read()", time_calls(clock.read)),
            Row("ClockReader.now()", time_calls(clock.now)),
            Row("SensorReader.now()", time_calls(sensors.now)),
            Row("time.time()", time_calls(time.time)),
            Row("datetime.now(UTC)", time_calls(lambda: datetime.now(UTC))),
            Row("a system call (getppid)", time_calls(os.getppid)),
            Row("time server, Unix socket", _time_slow_calls(ask)),
        ]


def measure_concurrent_reads(target: Target) -> list[Row]:
    """Ten processes that read without pause, on whatever cores there are."""
    command = [sys.executable, "-m", "bench.clock", "--role", "reader", "--prefix", target.prefix]
    readers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(CONCURRENT_READERS)
    ]
    for reader in readers:
        assert reader.stdout is not None
        reader.stdout.readline()
    outputs = [json.loads(reader.communicate("go\n")[0]) for reader in readers]
    medians = [output["median_ns"] for output in outputs]
    return [
        Row(
            f"now() in {CONCURRENT_READERS} processes at once",
            {
                "median_ns": statistics.median(medians),
                "worst_median_ns": max(medians),
                "stale": sum(output["stale"] for output in outputs),
                "failed": sum(output["failed"] for output in outputs),
            },
        )
    ]


def measure_daemon(target: Target) -> list[Row]:
    """Processor time, ticks that were missed, and how late ticks are, by samples of the record.

    A tick's lateness is its distance from the grid of deadlines, whose phase is that of the
    earliest tick seen.
    """
    period_ns = 10**9 // HZ
    process = psutil.Process(target.pid)
    clock = ClockReader(target.prefix)
    first, cpu = clock.read(), process.cpu_times()
    moments_ns = []
    end_s = time.monotonic() + target.seconds
    while time.monotonic() < end_s:
        moments_ns.append(clock.read().monotonic_ns)
        time.sleep(0.0017)
    last, cpu_after = clock.read(), process.cpu_times()
    elapsed_ns = last.monotonic_ns - first.monotonic_ns
    used_s = cpu_after.user + cpu_after.system - cpu.user - cpu.system
    phase_ns = _find_grid_phase(moments_ns, period_ns)
    late_us = [((moment - phase_ns) % period_ns) / 1000 for moment in moments_ns]
    ticks = (last.sequence - first.sequence) / 2
    return [
        Row(
            f"daemon at {HZ} Hz",
            {
                "cpu_percent": 100 * used_s / (elapsed_ns / 1e9),
                "jitter_p50_us": statistics.median(late_us),
                "jitter_p99_us": _percentile(late_us, 0.99),
                "ticks_missed_percent": 100 * (1 - ticks / (elapsed_ns / period_ns)),
            },
        )
    ]


def measure_memory(target: Target) -> list[Row]:
    bare = "import sys; sys.stdin.read()"
    reader = (
        "import sys; from shared_context_server.clock import ClockReader;"
        f"c = ClockReader({target.prefix!r}); c.now(); print(flush=True); sys.stdin.read()"
    )
    return [
        Row("daemon, memory", {"rss_mb": psutil.Process(target.pid).memory_info().rss / 2**20}),
        Row("a process with a reader", {"rss_mb": _find_rss_mb(reader)}),
        Row("a bare Python process", {"rss_mb": _find_rss_mb(f"print(flush=True); {bare}")}),
    ]


def measure_server(target: Target) -> list[Row]:
    command = [sys.executable, "-m", "bench.clock_server", "measure", target.prefix]
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return [Row(name, figures) for name, figures in json.loads(output).items()]


SECTIONS: list[Section] = [
    measure_reads,
    measure_concurrent_reads,
    measure_daemon,
    measure_memory,
    measure_server,
]


@contextmanager
def run_daemon_process(prefix: str) -> Iterator[int]:
    """A daemon of its own for the measurement; its pid."""
    command = [sys.executable, "-m", "shared_context_server.clock", "--prefix", prefix]
    daemon = subprocess.Popen(
        [*command, "--hz", str(HZ), "--source", "psutil"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert daemon.stdout is not None
        with daemon.stdout as ready:
            ready.readline()
            yield daemon.pid
    finally:
        daemon.terminate()
        daemon.wait()


@contextmanager
def open_time_server() -> Iterator[Callable[[], bytes]]:
    """A process that answers the time over a Unix socket; a function that asks it once."""
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "time.sock")
        server = subprocess.Popen(
            [sys.executable, "-m", "bench.clock", "--role", "server", "--socket", path],
            stdout=subprocess.PIPE,
        )
        assert server.stdout is not None
        server.stdout.readline()
        with closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.connect(path)

            def ask() -> bytes:
                connection.send(b"?")
                return connection.recv(32)

            try:
                yield ask
            finally:
                connection.close()
                server.wait()
                server.stdout.close()


def serve_time(path: str) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(path)
        listener.listen()
        print("listening", flush=True)
        connection, _ = listener.accept()
        with connection:
            while connection.recv(1):
                connection.send(b"%f" % time.time())


def read_beside_others(prefix: str) -> None:
    clock = ClockReader(prefix)
    clock.now()
    print("ready", flush=True)
    sys.stdin.readline()
    blocks, stale, failed = [], 0, 0
    end_s = time.monotonic() + 2
    while time.monotonic() < end_s:
        started_ns = time.perf_counter_ns()
        try:
            for _ in range(100):
                reading = clock.now()
        except Exception:  # noqa: BLE001 - whatever it is, it is counted
            failed += 1
        blocks.append((time.perf_counter_ns() - started_ns) / 100)
        stale += reading.stale
    print(json.dumps({"median_ns": statistics.median(blocks), "stale": stale, "failed": failed}))


def print_table(rows: list[Row]) -> None:
    for row in rows:
        figures = "  ".join(f"{name} {value:,.2f}" for name, value in row.figures.items())
        print(f"{row.name:32} {figures}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.clock", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=10.0, help="to watch the daemon for")
    parser.add_argument("--role", choices=("main", "reader", "server"), default="main")
    parser.add_argument("--prefix", default=f"bench{secrets.token_hex(4)}_")
    parser.add_argument("--socket", default="")
    given = parser.parse_args()
    if given.role == "reader":
        read_beside_others(given.prefix)
        return 0
    if given.role == "server":
        serve_time(given.socket)
        return 0
    with run_daemon_process(given.prefix) as pid:
        target = Target(given.prefix, pid, given.seconds)
        rows = [row for section in SECTIONS for row in section(target)]
    if given.json:
        print(json.dumps({row.name: row.figures for row in rows}, indent=2))
    else:
        print_table(rows)
    return 0


def _time_singly(call: Callable[[], object], count: int) -> list[int]:
    times = []
    now = time.perf_counter_ns
    for _ in range(count):
        started_ns = now()
        call()
        times.append(now() - started_ns)
    return times


def _time_slow_calls(call: Callable[[], object]) -> dict[str, float]:
    times = _time_singly(call, 10_000)
    return {"median_ns": statistics.median(times), "p99_ns": _percentile(times, 0.99)}


def _time_empty_loop() -> float:
    blocks = []
    for _ in range(BLOCKS):
        started_ns = time.perf_counter_ns()
        for _ in range(BLOCK):
            pass
        blocks.append((time.perf_counter_ns() - started_ns) / BLOCK)
    return statistics.median(blocks)


def _percentile(values: list[int] | list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


def _find_grid_phase(moments_ns: list[int], period_ns: int) -> int:
    """The phase just before which no tick comes: where the widest gap between phases ends."""
    phases = sorted({moment % period_ns for moment in moments_ns})
    gaps = [
        ((phase - phases[index - 1]) % period_ns or period_ns, phase)
        for index, phase in enumerate(phases)
    ]
    return max(gaps)[1]


def _find_rss_mb(code: str) -> float:
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    rss_mb = psutil.Process(process.pid).memory_info().rss / 2**20
    process.communicate()
    return float(rss_mb)


if __name__ == "__main__":
    sys.exit(main())
