"""Whose clock is believed: anybody on the machine may make a segment of any name."""

import os
import pwd
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared_context_server.clock import (
    ClockNotRunningError,
    ClockReader,
    OptionError,
    SegmentAccessError,
    SensorReader,
)
from shared_context_server.clock.layout import (
    RECORD_SIZE,
    clock_segment_name,
    encode_clock,
    encode_sensors,
    sensor_segment_name,
)
from shared_context_server.clock.segment import create_segment
from shared_context_server.clock.writer_lock import hold_writer_lock
from tests.clock.daemons import open_segment

STRANGER = 12345
SHARED = Path("/dev/shm")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")


def write_clock(prefix, time_s=1.8e9, age_ns=0):
    segment = open_segment(clock_segment_name(prefix))
    segment.write_record(
        encode_clock(
            time_s=time_s,
            last_sync_s=0.0,
            flags=1,
            monotonic_ns=time.monotonic_ns() - age_ns,
            offset_s=0.0,
            error_bound_s=0.1,
            pid=os.getpid(),
            tick_period_us=1000,
            sensor_interval_ms=1000,
        )
    )
    return segment


@pytest.fixture
def segment_path(prefix):
    write_clock(prefix)
    return SHARED / clock_segment_name(prefix)


@pytest.mark.parametrize("method", ["now", "read"])
@as_root
def test_the_clock_of_another_user_is_not_believed_and_the_error_says_what_to_set(
    prefix, segment_path, method
):
    os.chown(segment_path, STRANGER, STRANGER)
    with pytest.raises(SegmentAccessError, match=f"CLOCK_OWNER={STRANGER}"):
        getattr(ClockReader(prefix), method)()


@pytest.mark.parametrize("method", ["now", "read"])
@as_root
def test_the_sensors_of_another_user_are_not_believed(prefix, method):
    segment = open_segment(sensor_segment_name(prefix))
    segment.write_record(encode_sensors(temperature_c=99.0, monotonic_ns=1, pid=os.getpid()))
    os.chown(SHARED / segment.name, STRANGER, STRANGER)
    with pytest.raises(SegmentAccessError, match=f"user {STRANGER}"):
        getattr(SensorReader(prefix), method)()


@pytest.mark.parametrize("owner", [STRANGER, str(STRANGER)])
@as_root
def test_the_clock_of_a_user_who_is_named_is_believed(prefix, segment_path, owner):
    os.chown(segment_path, STRANGER, STRANGER)
    assert ClockReader(prefix, owner=owner).now().time >= 1.8e9


@as_root
def test_a_user_may_be_named_by_name(prefix, segment_path):
    somebody = next(user for user in pwd.getpwall() if user.pw_uid)
    os.chown(segment_path, somebody.pw_uid, -1)
    assert ClockReader(prefix, owner=somebody.pw_name).now().time >= 1.8e9


@as_root
def test_roots_clock_is_believed_by_everybody(prefix, segment_path):
    code = (
        "import os; from shared_context_server.clock import ClockReader\n"
        f"os.setuid({STRANGER}); ClockReader({prefix!r}).now()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("owner", ["nobody of this name", "-1", str(2**32 - 1), "9" * 5000, "a\0b"])
@pytest.mark.parametrize("reader_type", [ClockReader, SensorReader])
def test_an_owner_who_is_no_user_is_refused(reader_type, owner):
    with pytest.raises(OptionError, match="owner"):
        reader_type(owner=owner)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_segment_that_others_may_write_to_is_not_believed(prefix, segment_path, mode):
    segment_path.chmod(mode)
    with pytest.raises(SegmentAccessError, match=f"{mode:04o}"):
        ClockReader(prefix).now()


def test_a_daemon_replaces_a_segment_that_others_may_write_to(prefix, segment_path):
    segment_path.chmod(0o666)
    number = segment_path.stat().st_ino
    segment = write_clock(prefix)
    assert segment_path.stat().st_ino != number
    assert ClockReader(prefix).now().time >= 1.8e9
    segment.close()


@as_root
def test_a_daemon_of_root_replaces_the_segment_of_another_user(prefix, segment_path):
    os.chown(segment_path, STRANGER, STRANGER)
    write_clock(prefix, time_s=1.9e9)
    assert ClockReader(prefix).now().time >= 1.9e9


@as_root
def test_a_reader_stays_with_its_last_record_when_a_stranger_takes_the_name(prefix):
    """Whoever makes a segment of the name after the daemon has gone does not move its readers."""
    segment = write_clock(prefix, age_ns=10**9)
    reader = ClockReader(prefix)
    reader.now()
    segment.close()
    path = SHARED / segment.name
    write_clock(prefix, time_s=7.0)
    os.chown(path, STRANGER, STRANGER)
    now = reader.now()
    assert now.stale
    assert now.time >= 1.8e9
    assert reader.read().time_s == 1.8e9


def make_symbolic_link(path, tmp_path):
    target = tmp_path / "elsewhere"
    target.write_bytes(bytes(RECORD_SIZE))
    path.symlink_to(target)


def make_pipe(path, tmp_path):
    os.mkfifo(path, 0o600)


def make_directory(path, tmp_path):
    path.mkdir()


@pytest.fixture(params=[make_symbolic_link, make_pipe, make_directory])
def strange_path(request, prefix, tmp_path):
    """What is no segment under the name of one; a pipe would make its opener wait."""
    path = SHARED / clock_segment_name(prefix)
    request.param(path, tmp_path)
    yield path
    if path.is_dir() and not path.is_symlink():
        path.rmdir()


def test_what_is_no_segment_is_refused_by_readers(prefix, strange_path):
    with pytest.raises(SegmentAccessError, match="time_daemon_shm"):
        ClockReader(prefix).now()


def test_what_is_no_segment_ends_a_daemon_in_one_line_or_is_replaced(
    start_daemon, prefix, strange_path
):
    daemon = start_daemon(ready=False)
    if strange_path.is_fifo():
        daemon.wait_ready()
        assert not ClockReader(prefix).now().stale
    else:
        assert daemon.process.wait(timeout=30) == 1
        assert "Traceback" not in daemon.errors
        assert "time_daemon_shm" in daemon.errors


@pytest.mark.parametrize("make", [make_symbolic_link, make_pipe, make_directory])
def test_what_is_no_lock_is_refused_by_daemons(prefix, tmp_path, make):
    path = SHARED / f"{prefix}time_daemon_lock"
    make(path, tmp_path)
    try:
        with pytest.raises(SegmentAccessError), hold_writer_lock(prefix):
            pass
    finally:
        if make is make_directory:
            path.rmdir()


def test_a_segment_has_its_memory_from_the_beginning(prefix):
    """A writer is not killed later because shared memory is full."""
    create_segment(f"{prefix}s", RECORD_SIZE)
    assert (SHARED / f"{prefix}s").stat().st_blocks > 0


def test_a_segment_of_size_0_is_one_in_the_making(prefix):
    (SHARED / clock_segment_name(prefix)).touch(0o600)
    with pytest.raises(ClockNotRunningError):
        ClockReader(prefix).now()
