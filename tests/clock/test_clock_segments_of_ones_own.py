"""Segments that a program declares itself: SegmentLayout, SegmentWriter and SegmentReader."""

import ctypes
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from shared_context_server.clock import (
    OptionError,
    ReaderClosedError,
    SegmentAccessError,
    SegmentClosedError,
    SegmentInUseError,
    SegmentLayout,
    SegmentLayoutError,
    SegmentNotFoundError,
    SegmentReader,
    SegmentWriter,
    UnstableRecordError,
    WriterAlreadyRunningError,
)
from shared_context_server.clock.layout import CLOCK_LAYOUT, SENSOR_LAYOUT

SHARED = Path("/dev/shm")
LIMITS = SegmentLayout("limits", {"allowed": "Q", "tokens": "d", "zone": "8s", "is_on": "?"})
PLAIN = SegmentLayout.exact(
    "plain", {"first": "d", "second": "d", "sequence": "I", "flags": "I"}, odd_while_writing=False
)


def write(writer, number):
    writer.write(allowed=number, tokens=number / 2, zone=b"eu", is_on=number % 2)


def start_python(code, prefix):
    program = (
        "import os, sys, time\n"
        "from shared_context_server.clock import *\n"
        "limits = SegmentLayout('limits', {'allowed': 'Q', 'tokens': 'd', 'zone': '8s', 'is_on': '?'})\n"
        f"prefix = {prefix!r}\n{code}"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


WRITE_AND_WAIT = (
    "writer = SegmentWriter(limits, prefix)\n"
    "writer.write(allowed=7, tokens=3.5, zone=b'eu', is_on=True)\n"
    "print('written', flush=True)\nsys.stdin.read()\n"
)


def test_a_reader_gets_the_fields_by_name_with_age_and_writer(prefix):
    with SegmentWriter(LIMITS, prefix) as writer, SegmentReader(LIMITS, prefix) as reader:
        for number in (1, 2, 3):
            write(writer, number)
            reading = reader.read()
            assert reading.values == (number, number / 2, b"eu" + bytes(6), number % 2 == 1)
            assert reading.values.tokens == number / 2
            assert reading.sequence == number
        assert (reading.writer_pid, reading.valid, reading.verified) == (os.getpid(), True, True)
        assert 0 <= reading.age_s < 30
        assert reader.read().age_s > reading.age_s
        assert reader.is_writer_alive() is True


def test_the_header_stands_where_the_documentation_says(prefix):
    class Record(ctypes.LittleEndianStructure):
        """As a C compiler lays it out."""

        _fields_ = (
            ("sequence", ctypes.c_uint32),
            ("pid", ctypes.c_uint32),
            ("version", ctypes.c_uint32),
            ("record_size", ctypes.c_uint32),
            ("monotonic_ns", ctypes.c_uint64),
            ("allowed", ctypes.c_uint64),
            ("tokens", ctypes.c_double),
            ("zone", ctypes.c_char * 8),
            ("is_on", ctypes.c_bool),
        )

    with SegmentWriter(LIMITS, prefix) as writer:
        write(writer, 5)
        record = Record.from_buffer_copy((SHARED / f"{prefix}limits").read_bytes() + bytes(8))
    assert (record.sequence, record.pid, record.version) == (2, os.getpid(), 1)
    assert record.record_size == LIMITS.size
    assert (record.allowed, record.tokens, record.zone, record.is_on) == (5, 2.5, b"eu", True)


@pytest.mark.parametrize("layout", [CLOCK_LAYOUT, SENSOR_LAYOUT], ids=lambda layout: layout.name)
def test_the_daemon_s_own_segments_can_be_read_in_the_same_way(prefix, start_daemon, layout):
    daemon = start_daemon("--source", "simulated")
    with SegmentReader(layout, prefix) as reader:
        reading = reader.read()
        assert (reading.writer_pid, reading.verified) == (daemon.process.pid, True)
        assert reader.is_writer_alive() is True


def test_one_writer_at_a_time(prefix, shared_files):
    with start_python(WRITE_AND_WAIT, prefix) as other:
        assert other.stdout.readline() == "written\n"
        with pytest.raises(WriterAlreadyRunningError, match=f"pid {other.pid}"):
            SegmentWriter(LIMITS, prefix)
        other.communicate("")
    assert shared_files() == ["limits", "limits_lock"]  # it ended without closing
    with SegmentReader(LIMITS, prefix) as reader:
        assert reader.read().writer_pid == other.pid
    SegmentWriter(LIMITS, prefix).close()
    assert shared_files() == []


def test_the_segment_of_a_killed_writer_is_taken_over_and_its_readers_go_on(prefix):
    with start_python(WRITE_AND_WAIT, prefix) as first, SegmentReader(LIMITS, prefix) as reader:
        assert first.stdout.readline() == "written\n"
        assert reader.read().values.allowed == 7
        assert reader.is_writer_alive()
        first.kill()
        first.wait()
        assert reader.is_writer_alive() is False
        assert reader.read().values.allowed == 7
        with SegmentWriter(LIMITS, prefix, watch_s=60) as second:  # known to be dead: not watched
            write(second, 8)
            reading = reader.read()
            assert (reading.values.allowed, reading.sequence) == (8, 2)
            assert reading.writer_pid == os.getpid()


def test_a_reader_notices_the_end_of_a_writer_and_follows_the_next(prefix):
    with SegmentReader(LIMITS, prefix) as reader:
        with SegmentWriter(LIMITS, prefix) as writer:
            write(writer, 1)
            assert reader.read().valid
        ended = reader.read()
        assert (ended.valid, ended.writer_pid, ended.values.allowed) == (False, None, 1)
        assert reader.is_writer_alive() is False
        with SegmentWriter(LIMITS, prefix) as writer:
            write(writer, 2)
            assert reader.read().values.allowed == 2


def test_a_segment_that_somebody_unlinked_is_made_again(prefix, wait_until):
    with SegmentWriter(LIMITS, prefix) as writer, SegmentReader(LIMITS, prefix) as reader:
        write(writer, 1)
        reader.read()
        assert not writer.restore()
        (SHARED / f"{prefix}limits").unlink()
        assert writer.restore()
        write(writer, 2)
        wait_until(lambda: reader.read().values.allowed == 2)


def test_a_process_that_was_forked_from_the_writer_s_cannot_write(prefix):
    with SegmentWriter(LIMITS, prefix) as writer, SegmentReader(LIMITS, prefix) as reader:
        write(writer, 1)
        code = (
            WRITE_AND_WAIT.replace("sys.stdin.read()\n", "")
            + "child = os.fork()\n"
            + "if not child:\n"
            + "    try: writer.write(allowed=9, tokens=1.0, zone=b'', is_on=False)\n"
            + "    except SegmentClosedError: os._exit(3)\n"
            + "    os._exit(0)\n"
            + "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
            + "writer.write(allowed=8, tokens=1.0, zone=b'', is_on=False)\n"
            + "print(SegmentReader(limits, prefix).is_writer_alive()); writer.close()\n"
        )
        with start_python(code, f"{prefix}b_") as forking:
            assert forking.communicate()[0].split() == ["written", "3", "True"]
        assert reader.read().values.allowed == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
def test_the_segment_of_a_user_who_is_not_trusted_is_refused(prefix):
    with SegmentWriter(LIMITS, prefix) as writer:
        write(writer, 1)
        os.chown(SHARED / f"{prefix}limits", 12345, 12345)
        with pytest.raises(SegmentAccessError, match="user 12345"):
            SegmentReader(LIMITS, prefix).read()
        assert SegmentReader(LIMITS, prefix, owner=12345).read().values.allowed == 1
        os.chown(SHARED / f"{prefix}limits", 0, 0)


def test_a_user_who_may_not_ask_for_the_lock_is_told_by_the_pid(prefix):
    code = "os.setuid(12345)\nprint(SegmentReader(limits, prefix).is_writer_alive())"
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    with SegmentWriter(LIMITS, prefix) as writer:
        write(writer, 1)
        with start_python(code, prefix) as other:
            assert other.communicate()[0] == "True\n"


@pytest.mark.parametrize(
    "other, reason",
    [
        (SegmentLayout("limits", {"allowed": "Q"}), "bytes"),
        (
            SegmentLayout(
                "limits", {"allowed": "Q", "tokens": "d", "zone": "8s", "is_on": "?"}, version=2
            ),
            "version 1",
        ),
    ],
)
def test_a_segment_of_another_layout_is_refused(prefix, other, reason):
    with SegmentWriter(LIMITS, prefix) as writer:
        write(writer, 1)
        with pytest.raises(SegmentLayoutError, match=reason):
            SegmentReader(other, prefix).read()


def test_what_is_not_there_or_over_has_an_error_of_its_own(prefix):
    reader = SegmentReader(LIMITS, prefix)
    with pytest.raises(SegmentNotFoundError, match="limits"):
        reader.read()
    writer = SegmentWriter(LIMITS, prefix)
    with pytest.raises(SegmentNotFoundError):
        reader.read()  # there is a segment, and nothing in it
    writer.close()
    writer.close()
    with pytest.raises(SegmentClosedError):
        write(writer, 1)
    reader.close()
    with pytest.raises(ReaderClosedError):
        reader.read()


def test_an_unfinished_write_is_an_error_or_the_record_read_before(prefix):
    with SegmentWriter(LIMITS, prefix) as writer, SegmentReader(LIMITS, prefix) as reader:
        write(writer, 1)
        assert reader.read().values.allowed == 1
        with (SHARED / f"{prefix}limits").open("r+b") as file:
            file.write(struct.pack("<I", 3))
            file.seek(24)
            file.write(struct.pack("<Q", 999))
        assert reader.read().values.allowed == 1
        with pytest.raises(UnstableRecordError, match="Start it again"):
            SegmentReader(LIMITS, prefix).read()


@pytest.mark.parametrize(
    "make, option",
    [
        (lambda: SegmentLayout("a/b", {"x": "Q"}), "name"),
        (lambda: SegmentLayout("", {"x": "Q"}), "name"),
        (lambda: SegmentLayout("a", {}), "fields"),
        (lambda: SegmentLayout("a", {"x": "Q"}, version=0), "version"),
        (lambda: SegmentLayout("a", {"pid": "I"}), "field 'pid'"),
        (lambda: SegmentLayout("a", {"a b": "Q"}), "field 'a b'"),
        (lambda: SegmentLayout("a", {"class": "Q"}), "field 'class'"),
        (lambda: SegmentLayout("a", {"x": "P"}), "field 'x'"),
        (lambda: SegmentLayout("a", {"x": "QQ"}), "field 'x'"),
        (lambda: SegmentLayout("a", {"flags": "Q"}), "field 'flags'"),
        (lambda: SegmentLayout("a", {"x": "B", "y": "Q"}), "field 'y'"),
        (lambda: SegmentLayout("a", {"x": "65535s"}), "fields"),
        (lambda: SegmentLayout.exact("a", {"x": "Q"}), "fields"),
        (lambda: SegmentWriter(LIMITS, "a/b"), "prefix"),
        (lambda: SegmentReader(LIMITS, owner="nobody of this name"), "owner"),
    ],
)
def test_a_layout_that_cannot_be_is_refused_by_name(make, option):
    with pytest.raises(OptionError) as caught:
        make()
    assert caught.value.option == option


@pytest.mark.parametrize(
    "changed, option",
    [
        ({"allowed": -1}, "field 'allowed'"),
        ({"allowed": 2**64}, "field 'allowed'"),
        ({"allowed": 1.5}, "field 'allowed'"),
        ({"tokens": "1"}, "field 'tokens'"),
        ({"zone": "eu"}, "field 'zone'"),
        ({"zone": b"much too long"}, "field 'zone'"),
        ({"is_on": "no"}, "field 'is_on'"),
        ({"colour": 1}, "field 'colour'"),
        ({"tokens": None}, "field 'tokens'"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name_and_not_written(prefix, changed, option):
    values = {"allowed": 1, "tokens": 1.0, "zone": b"", "is_on": True}
    with SegmentWriter(LIMITS, prefix) as writer:
        writer.write(**values)
        with pytest.raises(OptionError) as caught:
            writer.write(**{**values, **changed})
        assert caught.value.option == option
        values.pop("tokens")
        with pytest.raises(OptionError, match="missing"):
            writer.write(**values)
        assert SegmentReader(LIMITS, prefix).read().sequence == 1


# A program without seqlock, lock or pid: it counts its writes after each of them.
PLAIN_DAEMON = """
import mmap, os, struct, sys, time
path, pause_s = "/dev/shm/" + sys.argv[1], float(sys.argv[2])
with open(path, "w+b") as file:
    file.truncate(24)
    memory = mmap.mmap(file.fileno(), 24)
number = 0
while True:
    number += 1
    memory[:16] = struct.pack("<dd", number, -number)
    memory[20:24] = struct.pack("<I", 1)
    memory[16:20] = struct.pack("<I", number)
    if number == 3:
        print("written", flush=True)
    time.sleep(pause_s)
"""


@pytest.fixture
def start_plain_daemon(prefix):
    started = []

    def start(name, pause_s):
        command = [sys.executable, "-c", PLAIN_DAEMON, prefix + name, str(pause_s)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "written\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_plain_daemon_is_read_and_marked_as_not_verified(prefix, start_plain_daemon, wait_until):
    process = start_plain_daemon("plain", 0.001)
    with SegmentReader(PLAIN, prefix) as reader:
        first = reader.read()
        assert (first.verified, first.valid, first.writer_pid) == (False, True, None)
        assert first.age_s is None  # nothing in the segment tells, and it was seen only once
        assert reader.is_writer_alive() is None
        wait_until(lambda: reader.read().sequence > first.sequence + 10)
        later = reader.read()
        assert later.values.first == -later.values.second
        assert later.sequence - later.values.first in (0, 1, -1)
        assert later.age_s is not None
        process.kill()
        process.wait()
        last = reader.read()
        wait_until(lambda: reader.read().age_s > 0.2)
        assert reader.read().sequence == last.sequence


def test_a_segment_that_another_program_writes_is_not_taken_over_while_it_does(
    prefix, start_plain_daemon, start_daemon
):
    process = start_plain_daemon("time_daemon_shm", 0.01)
    number = (SHARED / f"{prefix}time_daemon_shm").stat().st_ino
    for layout in (CLOCK_LAYOUT, SegmentLayout("time_daemon_shm", {"x": "Q"})):
        with pytest.raises(SegmentInUseError, match="another program"):
            SegmentWriter(layout, prefix, watch_s=60)  # it moves, so this does not take so long
    daemon = start_daemon("--source", "none", ready=False)
    assert daemon.process.wait(timeout=30) == 1
    assert "another program writes" in daemon.errors
    assert (SHARED / f"{prefix}time_daemon_shm").stat().st_ino == number
    process.kill()
    process.wait()
    start_daemon("--source", "none")
    with SegmentReader(CLOCK_LAYOUT, prefix) as reader:
        assert reader.read().valid


def test_a_segment_whose_lock_was_removed_is_not_taken_from_its_writer(prefix):
    code = WRITE_AND_WAIT.replace(
        "sys.stdin.read()\n",
        "while True:\n    writer.write(allowed=7, tokens=3.5, zone=b'eu', is_on=True)\n"
        "    time.sleep(0.001)\n",
    )
    with start_python(code, prefix) as other:
        try:
            assert other.stdout.readline() == "written\n"
            (SHARED / f"{prefix}limits_lock").unlink()
            with pytest.raises(SegmentInUseError):
                SegmentWriter(LIMITS, prefix, watch_s=60)
        finally:
            other.kill()


def test_a_writer_starts_while_readers_ask_whether_it_lives(prefix):
    """Asking takes the lock for a moment."""
    with SegmentWriter(LIMITS, prefix) as writer:
        write(writer, 1)
        reader = SegmentReader(LIMITS, prefix)
        reader.read()
    is_over = threading.Event()

    def ask_on():
        while not is_over.is_set():
            reader.is_writer_alive()

    asking = threading.Thread(target=ask_on)
    asking.start()
    try:
        for _ in range(50):
            SegmentWriter(LIMITS, prefix).close()
    finally:
        is_over.set()
        asking.join()
