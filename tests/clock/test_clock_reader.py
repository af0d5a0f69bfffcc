import math
import os
import threading
import time
from pathlib import Path

import pytest

from shared_context_server.clock import (
    ClockError,
    ClockNotRunningError,
    ClockReader,
    OptionError,
    ReaderClosedError,
    SegmentLayoutError,
    SensorReader,
    UnstableRecordError,
)
from shared_context_server.clock.layout import (
    DRIFT,
    RECORD_SIZE,
    clock_segment_name,
    encode_clock,
    encode_sensors,
    sensor_segment_name,
)
from shared_context_server.clock.segment import create_segment, unlink_segment
from tests.clock.daemons import open_segment


def make_clock_record(*, age_s=0.0, time_s=1.8e9, bound_s=math.inf, flags=1, period_us=1000):
    return encode_clock(
        time_s=time_s,
        last_sync_s=0.0,
        flags=flags,
        monotonic_ns=time.monotonic_ns() - int(age_s * 1e9),
        offset_s=0.0,
        error_bound_s=bound_s,
        pid=os.getpid(),
        tick_period_us=period_us,
        sensor_interval_ms=1000,
    )


def make_sensor_record(*, age_s=0.0, **channels):
    monotonic_ns = time.monotonic_ns() - int(age_s * 1e9)
    return encode_sensors(monotonic_ns=monotonic_ns, pid=os.getpid(), **channels)


@pytest.fixture
def clock(prefix):
    return open_segment(clock_segment_name(prefix))


@pytest.fixture
def sensors(prefix):
    return open_segment(sensor_segment_name(prefix))


@pytest.mark.parametrize("reader_type", [ClockReader, SensorReader])
@pytest.mark.parametrize("method", ["now", "read"])
def test_without_a_daemon_the_error_says_how_to_start_one(prefix, reader_type, method):
    with reader_type(prefix) as reader, pytest.raises(ClockNotRunningError) as caught:
        getattr(reader, method)()
    assert f"shared-context-server clock --prefix {prefix}" in str(caught.value)
    assert caught.value.command in str(caught.value)


def test_the_command_for_the_default_prefix_has_no_prefix():
    assert str(ClockNotRunningError("", "time_daemon_shm")).endswith(
        ": shared-context-server clock"
    )


def test_a_segment_nobody_has_written_to_yet_is_no_daemon(prefix, clock):
    with pytest.raises(ClockNotRunningError):
        ClockReader(prefix).now()


def test_now_is_the_time_at_the_tick_and_the_monotonic_time_since(prefix, clock):
    clock.write_record(make_clock_record(age_s=0.1, time_s=1.8e9))
    before_ns = time.monotonic_ns()
    reading = ClockReader(prefix).now()
    elapsed_s = (time.monotonic_ns() - before_ns) / 1e9
    assert 0.1 <= reading.age_s <= 0.1 + elapsed_s + 0.1
    assert reading.time == pytest.approx(1.8e9 + reading.age_s, abs=1e-6)


def test_bounds_are_none_until_the_daemon_knows_them(prefix, clock):
    clock.write_record(make_clock_record(bound_s=math.inf))
    reading = ClockReader(prefix).now()
    assert reading.earliest is None
    assert reading.latest is None
    assert not reading.synchronized


def test_bounds_lie_around_the_time_and_widen_with_age(prefix, clock):
    clock.write_record(make_clock_record(age_s=100.0, bound_s=0.25, flags=3))
    reading = ClockReader(prefix).now()
    half_width_s = 0.25 + reading.age_s * DRIFT
    assert reading.latest - reading.time == pytest.approx(half_width_s, abs=1e-6)
    assert reading.time - reading.earliest == pytest.approx(half_width_s, abs=1e-6)


@pytest.mark.parametrize(
    "age_s, period_us, is_stale",
    [(0.0, 1000, False), (0.3, 1000, True), (0.3, 100_000, False), (5.1, 100_000, True)],
)
def test_a_clock_is_stale_by_the_rate_of_its_daemon(prefix, clock, age_s, period_us, is_stale):
    clock.write_record(make_clock_record(age_s=age_s, period_us=period_us))
    assert ClockReader(prefix).now().stale == is_stale


def test_a_stale_clock_does_not_call_itself_synchronized(prefix, clock):
    reader = ClockReader(prefix)
    clock.write_record(make_clock_record(flags=3))
    assert reader.now().synchronized
    clock.write_record(make_clock_record(flags=3, age_s=1.0))
    assert not reader.now().synchronized


def test_a_record_from_the_future_is_stale(prefix, clock):
    clock.write_record(make_clock_record(age_s=-60.0))
    reading = ClockReader(prefix).now()
    assert reading.stale
    assert reading.age_s == 0


def test_sequence_counts_writes(prefix, clock):
    reader = ClockReader(prefix)
    clock.write_record(make_clock_record())
    first = reader.now().sequence
    clock.write_record(make_clock_record())
    clock.write_record(make_clock_record())
    assert reader.now().sequence == first + 2


def test_a_clock_that_was_closed_is_stale_at_once(prefix, clock):
    clock.write_record(make_clock_record())
    reader = ClockReader(prefix)
    assert not reader.now().stale
    clock.close()
    assert reader.now().stale


@pytest.mark.parametrize("read_raw", [False, True])
def test_a_reader_of_an_unlinked_segment_moves_to_its_successor_by_age(prefix, clock, read_raw):
    """The old daemon was killed and its segment removed: nothing in it says that it is over."""
    reader = ClockReader(prefix)

    def read_time():
        return reader.read().time_s if read_raw else reader.now().time

    clock.write_record(make_clock_record(age_s=1.0, time_s=1.0e9))
    assert read_time() < 1.1e9
    unlink_segment(create_segment(clock.name, RECORD_SIZE))
    assert read_time() < 1.1e9
    open_segment(clock.name).write_record(make_clock_record(time_s=1.8e9))
    assert read_time() > 1.7e9


def test_a_reader_stays_with_the_last_record_while_there_is_no_successor(prefix, clock):
    reader = ClockReader(prefix)
    clock.write_record(make_clock_record(age_s=1.0, time_s=1.0e9))
    reader.now()
    clock.close()
    assert reader.now().stale
    create_segment(clock.name, RECORD_SIZE)
    assert reader.now().stale
    assert reader.read().time_s == 1.0e9


def test_an_unfinished_write_is_an_error_and_not_a_mix(prefix, clock):
    clock.write_record(make_clock_record())
    create_segment(clock.name, RECORD_SIZE).view.cast("I")[4] |= 1
    reader = ClockReader(prefix)
    for read in (reader.now, reader.read):
        with pytest.raises(UnstableRecordError, match="shared-context-server clock"):
            read()
    clock.write_record(make_clock_record())
    assert not reader.now().stale


@pytest.mark.parametrize("first", ["now", "read"])
def test_during_an_unfinished_write_a_reader_goes_on_from_the_record_it_has_read(
    prefix, clock, first
):
    """Whichever way it was read. The record of the write, half of which is there, is not used."""
    clock.write_record(make_clock_record(age_s=0.1, time_s=1.8e9, bound_s=0.25))
    reader = ClockReader(prefix)
    getattr(reader, first)()
    view = create_segment(clock.name, RECORD_SIZE).view
    view.cast("I")[4] |= 1
    view.cast("d")[0] = 7.0
    now, raw = reader.now(), reader.read()
    assert now.time == pytest.approx(1.8e9 + now.age_s, abs=1e-6)
    assert now.latest - now.time == pytest.approx(0.25 + now.age_s * DRIFT, abs=1e-6)
    assert (raw.time_s, raw.sequence) == (1.8e9, 2 * now.sequence)


def test_a_reader_leaves_an_unfinished_segment_for_its_successor(prefix, clock):
    clock.write_record(make_clock_record())
    readers = [ClockReader(prefix), ClockReader(prefix)]
    for reader in readers:
        reader.now()
    left = create_segment(clock.name, RECORD_SIZE)
    left.view.cast("I")[4] |= 1
    unlink_segment(left)
    open_segment(clock.name).write_record(make_clock_record())
    assert not readers[0].now().stale
    assert readers[1].read().sequence == 2


def test_another_version_of_the_layout_is_refused(prefix, clock):
    clock.write_record(make_clock_record())
    view = create_segment(clock.name, RECORD_SIZE).view
    view[52] = 2
    with pytest.raises(SegmentLayoutError, match="version 2"):
        ClockReader(prefix).now()


@pytest.mark.parametrize("reader_type", [ClockReader, SensorReader])
def test_a_closed_reader_says_so(prefix, clock, sensors, reader_type):
    clock.write_record(make_clock_record())
    sensors.write_record(make_sensor_record())
    with reader_type(prefix) as reader:
        reader.now()
    for read in (reader.now, reader.read):
        with pytest.raises(ReaderClosedError):
            read()


def test_a_prefix_with_a_slash_is_refused_by_readers():
    with pytest.raises(OptionError):
        ClockReader("a/b")


def test_sensors_give_what_there_is_and_none_for_what_there_is_not(prefix, sensors):
    sensors.write_record(make_sensor_record(temperature_c=21.5, load1=0.0))
    reading = SensorReader(prefix).now()
    assert reading.temperature == 21.5
    assert reading.load1 == 0.0
    assert (reading.humidity, reading.cpu, reading.memory) == (None, None, None)
    assert not reading.simulated
    assert not reading.stale


def test_simulated_sensors_say_so(prefix, sensors):
    sensors.write_record(make_sensor_record(humidity_percent=40.0, simulated=True))
    reading = SensorReader(prefix).now()
    assert reading.humidity == 40.0
    assert reading.simulated


@pytest.mark.parametrize(
    "age_s, interval_ms, is_stale",
    [(1.9, 100, False), (2.1, 100, True), (20.0, 10_000, False), (31.0, 10_000, True)],
)
def test_sensors_are_stale_by_the_interval_of_their_daemon(
    prefix, clock, sensors, age_s, interval_ms, is_stale
):
    record = bytearray(make_clock_record())
    record[60:64] = interval_ms.to_bytes(4, "little")
    clock.write_record(bytes(record))
    sensors.write_record(make_sensor_record(age_s=age_s, cpu_percent=5.0))
    reading = SensorReader(prefix).now()
    assert reading.stale == is_stale
    assert reading.cpu == 5.0


def test_sensors_are_judged_by_the_default_interval_when_the_clock_is_gone(prefix, sensors):
    reader = SensorReader(prefix)
    sensors.write_record(make_sensor_record(age_s=2.5, cpu_percent=5.0))
    assert not reader.now().stale
    sensors.write_record(make_sensor_record(age_s=3.5, cpu_percent=5.0))
    assert reader.now().stale


def test_a_sensor_reader_moves_to_the_successor_of_its_segment(prefix, sensors):
    reader = SensorReader(prefix)
    sensors.write_record(make_sensor_record(age_s=10.0, cpu_percent=1.0))
    assert reader.now().stale
    sensors.close()
    open_segment(sensors.name).write_record(make_sensor_record(cpu_percent=2.0))
    assert reader.now().cpu == 2.0


def test_one_reader_serves_several_threads_through_replacements(prefix, clock):
    """Every replacement makes all threads re-attach, some at the same moment."""
    clock.write_record(make_clock_record(age_s=1.0, time_s=1e9))
    reader = ClockReader(prefix)
    failures = []
    is_over = threading.Event()

    def read_on():
        try:
            while not is_over.is_set():
                assert reader.now().time >= 1e9
                assert reader.read().time_s >= 1e9
        except (AssertionError, ClockError, OSError, ValueError) as exc:
            failures.append(exc)

    threads = [threading.Thread(target=read_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        unlink_segment(create_segment(clock.name, RECORD_SIZE))
        clock = open_segment(clock.name)
        clock.write_record(make_clock_record(age_s=1.0, time_s=1e9))
    is_over.set()
    for thread in threads:
        thread.join(timeout=30)
    assert failures == []


def test_a_published_segment_that_a_foreigner_unlinked_is_made_again(prefix, clock, shared_files):
    reader = ClockReader(prefix)
    clock.write_record(make_clock_record(time_s=1.8e9))
    assert not reader.now().stale
    assert not clock.restore()
    (Path("/dev/shm") / clock.name).unlink()
    assert clock.restore()
    assert shared_files() == ["time_daemon_shm"]
    clock.write_record(make_clock_record(time_s=1.9e9))
    assert reader.now().time >= 1.9e9
    assert ClockReader(prefix).now().time >= 1.9e9
