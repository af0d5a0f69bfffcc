"""A daemon that is stopped or killed exactly in the middle of a write."""

import signal

import pytest

from shared_context_server.clock import ClockReader, SensorReader, UnstableRecordError
from shared_context_server.clock.layout import clock_segment_name, sensor_segment_name
from tests.clock.daemons import (
    open_segment,
    read_sequence,
    run_daemon_process,
    run_restless_writer,
    stop_within_a_write,
    wait_for,
)

READERS = [
    pytest.param(ClockReader, clock_segment_name, id="clock"),
    pytest.param(SensorReader, sensor_segment_name, id="sensors"),
]


@pytest.mark.parametrize("reader_type, name_of", READERS)
def test_a_writer_killed_within_a_write_makes_the_last_record_stale(prefix, reader_type, name_of):
    segment = name_of(prefix)
    with run_restless_writer(segment) as writer, reader_type(prefix) as reader:
        last = reader.now()
        assert not last.stale
        stop_within_a_write(writer, segment)
        writer.kill()
        writer.wait()
        wait_for(lambda: reader.now().stale, "nobody told of the writer's death")
        now, raw = reader.now(), reader.read()
    assert read_sequence(segment) % 2 == 1
    assert now.age_s > last.age_s
    assert raw.sequence == 2 * now.sequence


@pytest.mark.parametrize("reader_type, name_of", READERS)
def test_who_has_read_nothing_before_is_told_how_to_start_the_daemon(prefix, reader_type, name_of):
    segment = name_of(prefix)
    with run_restless_writer(segment) as writer:
        stop_within_a_write(writer, segment)
    with reader_type(prefix) as reader:
        for read in (reader.now, reader.read):
            with pytest.raises(UnstableRecordError, match="shared-context-server clock --prefix"):
                read()


def test_a_writer_frozen_within_a_write_is_stale_until_it_goes_on(prefix):
    segment = clock_segment_name(prefix)
    with run_restless_writer(segment) as writer, ClockReader(prefix) as reader:
        reader.now()
        stop_within_a_write(writer, segment)
        wait_for(lambda: reader.now().stale, "nobody told that the writer stands")
        writer.send_signal(signal.SIGCONT)
        wait_for(lambda: not reader.now().stale, "the writer went on and the reader did not")


def test_readers_go_on_when_another_takes_over_what_was_left_within_a_write(prefix):
    """The next daemon writes to the same segment, from the odd number on."""
    segment = clock_segment_name(prefix)
    with ClockReader(prefix) as reader:
        with run_restless_writer(segment) as writer:
            reader.now()
            stop_within_a_write(writer, segment)
        wait_for(lambda: reader.now().stale, "nobody told of the writer's death")
        left = read_sequence(segment)
        with run_daemon_process(prefix):
            wait_for(lambda: not reader.now().stale, "the reader did not follow")
            assert reader.read().sequence > left
            assert ClockReader(prefix).now().sequence >= left // 2


def test_sensors_are_read_where_the_clock_beside_them_was_left_within_a_write(prefix):
    """Their reader asks the clock's segment for the interval when they are old."""
    segment = clock_segment_name(prefix)
    with run_restless_writer(segment) as writer:
        stop_within_a_write(writer, segment)
    with SensorReader(prefix) as reader:
        with run_restless_writer(sensor_segment_name(prefix)):
            assert not reader.now().stale
        wait_for(lambda: reader.now().stale, "the sensors never became stale")


def test_a_segment_that_was_left_within_a_write_can_be_closed(prefix, shared_files):
    segment = clock_segment_name(prefix)
    with run_restless_writer(segment) as writer:
        stop_within_a_write(writer, segment)
    open_segment(segment).close()
    assert shared_files() == []
