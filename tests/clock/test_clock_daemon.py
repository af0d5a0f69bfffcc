"""The daemon as a process: its life, its death, and what readers see of them."""

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from multiprocessing import shared_memory
from pathlib import Path

import pytest

from shared_context_server.clock import ClockNotRunningError, ClockReader, SensorReader
from shared_context_server.clock.daemon import run_daemon
from shared_context_server.clock.errors import DaemonAlreadyRunningError
from shared_context_server.clock.options import DaemonOptions
from tests.clock.daemons import unmeasured

QUIET = ("--source", "none")


def run_reader(code: str) -> str:
    """Run code in a process of its own; its output."""
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=unmeasured(),
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_time_is_that_of_the_system_clock(prefix, start_daemon):
    start_daemon(*QUIET)
    with ClockReader(prefix) as clock:
        before_s, reading, after_s = time.time(), clock.now(), time.time()
    assert before_s - 0.05 <= reading.time <= after_s + 0.05
    assert not reading.stale
    assert not reading.synchronized
    assert reading.earliest is None


def test_a_reader_that_knows_only_the_first_24_bytes_reads_both_segments(
    prefix, start_daemon, wait_until
):
    start_daemon("--source", "simulated")
    with SensorReader(prefix) as sensors:
        wait_until(lambda: sensors.now().temperature is not None)
    plain = struct.Struct("<ddII")
    time_s, last_sync_s, sequence, flags = plain.unpack_from(
        (Path("/dev/shm") / f"{prefix}time_daemon_shm").read_bytes()
    )
    assert abs(time_s - time.time()) < 10
    assert (last_sync_s, sequence % 2, flags) == (0.0, 0, 1)
    temperature, humidity, sequence, flags = plain.unpack_from(
        (Path("/dev/shm") / f"{prefix}sensor_data_shm").read_bytes()
    )
    assert 18 < temperature < 24
    assert 39 < humidity < 51
    assert sequence % 2 == 0
    assert flags == 0b1_0000_0111


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_clean_stop_leaves_nothing_in_shared_memory(prefix, start_daemon, shared_files, number):
    daemon = start_daemon("--source", "psutil")
    assert {"time_daemon_shm", "sensor_data_shm"} <= set(shared_files())
    assert daemon.stop(number) == 0
    assert shared_files() == []


def test_a_slow_clock_stops_without_waiting_for_its_next_tick(start_daemon, shared_files):
    daemon = start_daemon("--hz", "0.1", *QUIET)
    started_s = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - started_s < 8
    assert shared_files() == []


def test_a_second_daemon_is_refused_and_the_first_goes_on(prefix, start_daemon, wait_until):
    first = start_daemon(*QUIET)
    second = start_daemon(*QUIET, ready=False)
    assert second.process.wait(timeout=30) == 1
    assert f"pid {first.process.pid}" in second.errors
    with ClockReader(prefix) as clock:
        sequence = clock.now().sequence
        wait_until(lambda: clock.now().sequence > sequence)
        assert clock.read().pid == first.process.pid


def test_daemons_of_different_prefixes_do_not_meet(prefix, start_daemon):
    start_daemon(*QUIET)
    other = start_daemon("--prefix", f"{prefix}b_", *QUIET)
    with ClockReader(prefix) as one, ClockReader(f"{prefix}b_") as two:
        assert one.read().pid != two.read().pid == other.process.pid


def test_after_kill_9_readers_say_stale_within_the_promised_time(prefix, start_daemon, wait_until):
    daemon = start_daemon("--source", "simulated", "--sensor-interval", "0.1")
    with ClockReader(prefix) as clock, SensorReader(prefix) as sensors:
        wait_until(lambda: sensors.now().temperature is not None)
        assert not clock.now().stale
        assert not sensors.now().stale
        daemon.kill()
        killed_s = time.monotonic()
        wait_until(lambda: clock.now().stale)
        assert time.monotonic() - killed_s < 1.0  # promised: 250 ms
        wait_until(lambda: sensors.now().stale)
        assert time.monotonic() - killed_s < 4.0  # promised: 2 s
        assert sensors.now().temperature is not None


def test_a_successor_takes_over_from_a_killed_daemon_and_readers_recover(
    prefix, start_daemon, wait_until, shared_files
):
    first = start_daemon("--source", "simulated")
    with ClockReader(prefix) as clock, SensorReader(prefix) as sensors:
        last = clock.now().sequence
        sensors.now()
        first.kill()
        wait_until(lambda: clock.now().stale)
        second = start_daemon("--source", "simulated")
        assert "took over" in second.errors
        wait_until(lambda: not clock.now().stale)
        wait_until(lambda: not sensors.now().stale and sensors.now().temperature is not None)
        assert clock.now().sequence > last
        assert clock.read().pid == sensors.read().pid == second.process.pid
    assert second.stop() == 0
    assert shared_files() == []


def test_readers_recover_when_a_cleanly_stopped_daemon_is_started_again(
    prefix, start_daemon, wait_until
):
    first = start_daemon("--source", "simulated")
    with ClockReader(prefix) as clock, SensorReader(prefix) as sensors:
        wait_until(lambda: sensors.now().temperature is not None)
        clock.read()
        first.stop()
        assert clock.now().stale
        second = start_daemon("--source", "simulated")
        wait_until(lambda: not clock.now().stale)
        wait_until(lambda: sensors.read().pid == second.process.pid)
        assert clock.read().pid == second.process.pid


def test_readers_that_use_only_raw_reads_recover_too(prefix, start_daemon, wait_until):
    first = start_daemon(*QUIET)
    with ClockReader(prefix) as clock:
        assert clock.read().pid == first.process.pid
        first.kill()
        for name in ("time_daemon_shm", "sensor_data_shm"):
            (Path("/dev/shm") / f"{prefix}{name}").unlink()
        second = start_daemon(*QUIET)
        wait_until(lambda: clock.read().pid == second.process.pid)


def test_a_daemon_that_died_in_the_middle_of_a_write_is_succeeded(prefix, start_daemon):
    start_daemon(*QUIET).kill()
    with (Path("/dev/shm") / f"{prefix}time_daemon_shm").open("r+b") as segment:
        segment.seek(16)
        (sequence,) = struct.unpack("<I", segment.read(4))
        segment.seek(16)
        segment.write(struct.pack("<I", sequence | 1))
    start_daemon(*QUIET)
    with ClockReader(prefix) as clock:
        assert not clock.now().stale


def test_a_readers_exit_leaves_the_segments(prefix, start_daemon, shared_files):
    start_daemon(*QUIET)
    code = (
        "from shared_context_server.clock import *\n"
        f"c, s = ClockReader({prefix!r}), SensorReader({prefix!r})\n"
        "c.now(), c.read(), s.now(), s.read()\n"
        "import sys; print('multiprocessing' in str(sorted(sys.modules)))"
    )
    assert run_reader(code) == "False\n"
    assert {"time_daemon_shm", "sensor_data_shm"} <= set(shared_files())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_another_user_may_read_but_neither_write_nor_take_over(prefix, start_daemon):
    daemon = start_daemon(*QUIET)
    become_another = (
        "import os\n"
        "from shared_context_server.clock import *\n"
        "from shared_context_server.clock.daemon import run_daemon\n"
        "from shared_context_server.clock.options import DaemonOptions\n"
        "from shared_context_server.clock.segment import create_segment\n"
        "os.setgid(65534), os.setuid(65534)\n"
        "def refused(act):\n"
        "    try: act()\n"
        "    except SegmentAccessError: return True\n"
        f"print(ClockReader({prefix!r}).read().pid,"
        f" refused(lambda: create_segment({prefix + 'time_daemon_shm'!r}, 64)),"
        f" refused(lambda: run_daemon(DaemonOptions(prefix={prefix!r}, sources=()))))"
    )
    assert run_reader(become_another).split() == [str(daemon.process.pid), "True", "True"]


def test_a_foreign_readers_resource_tracker_does_not_end_the_clock(
    prefix, start_daemon, wait_until, shared_files
):
    """What Python before 3.13 does to segments that a reader merely attached to."""
    daemon = start_daemon(*QUIET)
    with ClockReader(prefix) as clock:
        clock.now()
        memory = shared_memory.SharedMemory(f"{prefix}time_daemon_shm")
        memory.unlink()
        memory.close()
        wait_until(lambda: "time_daemon_shm" in shared_files())
        wait_until(lambda: not clock.now().stale)
        assert clock.read().pid == daemon.process.pid
    assert "another process unlinked" in daemon.errors
    assert daemon.stop() == 0
    assert shared_files() == []


def test_ticks_keep_to_the_grid_and_do_not_drift(prefix, start_daemon, wait_until):
    """Deadlines are absolute: the lateness of a tick must not be passed on to those after it."""
    start_daemon("--hz", "200", *QUIET)
    period_ns = 5_000_000
    with ClockReader(prefix) as clock:
        wait_until(lambda: clock.now().sequence > 5)
        first = clock.read()
        phases = []
        for _ in range(200):
            sequence = clock.now().sequence
            wait_until(lambda seen=sequence: clock.now().sequence > seen)
            phases.append(clock.read().monotonic_ns % period_ns)
        last = clock.read()
    elapsed_ticks = (last.monotonic_ns - first.monotonic_ns) / period_ns
    assert (last.sequence - first.sequence) / 2 <= elapsed_ticks + 2
    # Prompt ticks share the phase of the grid, however many others are late on a busy machine. A
    # loop that slept a period after each tick would spread them evenly over the period.
    window_ns = period_ns // 10
    prompt = max(
        sum((phase - start) % period_ns < window_ns for phase in phases) for start in phases
    )
    assert prompt > 0.3 * len(phases)


def test_the_clock_does_not_keep_a_core_busy(prefix, start_daemon, wait_until):
    daemon = start_daemon(*QUIET)
    stat = Path(f"/proc/{daemon.process.pid}/stat")

    def cpu_s() -> float:
        return sum(map(int, stat.read_text().rsplit(")", 1)[1].split()[11:13])) / 100

    with ClockReader(prefix) as clock:
        started_s, used_s, sequence = time.monotonic(), cpu_s(), clock.now().sequence
        wait_until(lambda: clock.now().sequence >= sequence + 1500)
        share = (cpu_s() - used_s) / (time.monotonic() - started_s)
    assert share < 0.5


def test_sensors_are_read_as_often_as_the_clock_ticks_if_asked_for(
    prefix, start_daemon, wait_until, tmp_path
):
    (tmp_path / "pair.py").write_text("def read(): return 19.5, 40\n")
    daemon = start_daemon(
        *("--freq", "200", "--sensor-interval", "0", "--source", "python:pair:read", "--debug")
    )
    with ClockReader(prefix) as clock, SensorReader(prefix) as sensors:
        record = clock.read()
        assert (record.tick_period_us, record.sensor_interval_ms) == (5000, 5)
        wait_until(lambda: sensors.now().temperature == 19.5)
        assert sensors.now().humidity == 40
        first_tick, first_reading = clock.now().sequence, sensors.now().sequence
        wait_until(lambda: sensors.now().sequence >= first_reading + 50)
        assert clock.now().sequence - first_tick < 10 * 50  # not once a second
    assert daemon.stop() == 0
    assert "DEBUG sensor source 'python:pair:read': " in daemon.errors


def test_a_failing_sensor_neither_stops_the_clock_nor_the_other_sensors(
    prefix, start_daemon, wait_until, tmp_path
):
    (tmp_path / "shaky.py").write_text(
        "from pathlib import Path\n"
        "def read():\n"
        "    if Path('broken').exists(): raise RuntimeError('lost contact')\n"
        "    return {'temperature': 19.5}\n"
    )
    daemon = start_daemon(
        "--source", "python:shaky:read", "--source", "psutil", "--sensor-interval", "0.05"
    )
    with ClockReader(prefix) as clock, SensorReader(prefix) as sensors:
        wait_until(lambda: sensors.now().temperature == 19.5 and sensors.now().cpu is not None)
        (tmp_path / "broken").touch()
        wait_until(lambda: sensors.now().temperature != 19.5)
        reading = sensors.now()
        assert reading.memory is not None
        assert not reading.stale
        assert not clock.now().stale
        (tmp_path / "broken").unlink()
        wait_until(lambda: sensors.now().temperature == 19.5)
    assert daemon.errors.count("lost contact") == 1
    assert "gives readings again" in daemon.errors


def test_a_sensor_that_hangs_takes_only_its_own_channels(
    prefix, start_daemon, wait_until, tmp_path, shared_files
):
    (tmp_path / "hanging.py").write_text(
        "import threading\n"
        "calls = []\n"
        "def read():\n"
        "    calls.append(1)\n"
        "    if len(calls) > 1: threading.Event().wait()\n"
        "    return {'humidity': 55}\n"
    )
    daemon = start_daemon(
        "--source", "python:hanging:read", "--source", "psutil", "--sensor-interval", "0.05"
    )
    with ClockReader(prefix) as clock, SensorReader(prefix) as sensors:
        wait_until(lambda: sensors.now().humidity == 55)
        wait_until(lambda: sensors.now().humidity is None)
        assert not sensors.now().stale
        assert sensors.now().memory is not None
        assert not clock.now().stale
    assert daemon.stop() == 0
    assert shared_files() == []


def test_a_command_gives_readings_and_dies_with_the_daemon(
    prefix, start_daemon, wait_until, tmp_path
):
    script = tmp_path / "sensor.sh"
    script.write_text(
        "echo $$ > pid; [ -e slow ] && exec sleep 1000\n"
        "echo '" + json.dumps({"temperature": 20.25, "humidity": 33}) + "'\n"
    )
    daemon = start_daemon("--source", f"exec:sh {script}", "--sensor-interval", "0.05")
    with SensorReader(prefix) as sensors:
        wait_until(lambda: sensors.now().temperature == 20.25)
        assert sensors.now().humidity == 33
        (tmp_path / "slow").touch()
        wait_until(lambda: sensors.now().temperature is None or sensors.now().stale)
    sleeper = Path("/proc") / (tmp_path / "pid").read_text().strip()
    assert b"sleep" in (sleeper / "cmdline").read_bytes()
    assert daemon.stop() == 0
    wait_until(lambda: not sleeper.exists())


def test_a_machine_without_sensors_says_so(prefix, start_daemon):
    start_daemon("--source", "hwmon:there-is-no-such-chip")
    with SensorReader(prefix) as sensors:
        reading, record = sensors.now(), sensors.read()
    assert (reading.temperature, reading.humidity) == (None, None)
    assert record.temperature_c != record.temperature_c
    assert record.flags == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--hz", "0"),
        ("--hz", "nan"),
        ("--source", "thermometer"),
        ("--ntp", "host:port"),
        ("--ntp", "kernel", "--ntp", "127.0.0.1"),
        ("--prefix", "a/b"),
    ],
)
def test_bad_options_are_refused_before_anything_is_made(start_daemon, shared_files, arguments):
    daemon = start_daemon(*arguments, ready=False)
    assert daemon.process.wait(timeout=30) == 2
    assert arguments[0] in daemon.errors
    assert shared_files() == []


def test_the_daemon_runs_in_a_thread_of_another_program(prefix, shared_files):
    stop, ready = threading.Event(), threading.Event()
    options = DaemonOptions(prefix=prefix, sources=("simulated",))
    thread = threading.Thread(
        target=run_daemon, args=(options,), kwargs={"stop": stop, "on_ready": ready.set}
    )
    thread.start()
    assert ready.wait(20)
    assert not ClockReader(prefix).now().stale
    with pytest.raises(DaemonAlreadyRunningError):
        run_daemon(options)
    stop.set()
    thread.join(timeout=20)
    assert shared_files() == []
    with pytest.raises(ClockNotRunningError):
        ClockReader(prefix).now()
