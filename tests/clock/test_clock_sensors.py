"""Merging of several sources, each in its own thread, into one record."""

import threading

import pytest

from shared_context_server.clock import SensorFlag, SensorRecord
from shared_context_server.clock.sensors import SensorLoop
from shared_context_server.clock.sources.channels import Channels


class Room:
    """A source that gives what the test puts into it."""

    def __init__(self, channels):
        self.name = "room"
        self.channels = channels
        self.reads = 0
        self.is_closed = False

    def read(self):
        self.reads += 1
        if isinstance(self.channels, BaseException):
            raise self.channels
        return self.channels

    def close(self):
        self.is_closed = True


@pytest.fixture
def start_loop():
    loops = []

    def start(*rooms, interval_s=0.02):
        records = []
        loop = SensorLoop(
            rooms, interval_s, lambda record: records.append(SensorRecord.from_buffer_copy(record))
        )
        loop.start()
        loops.append(loop)
        start.loop = loop
        return records

    yield start
    for loop in loops:
        loop.stop()


def test_a_record_is_there_before_any_source_has_answered(start_loop):
    records = start_loop()
    assert [record.flags for record in records] == [0]


def test_later_sources_fill_the_channels_that_earlier_ones_lack(start_loop, wait_until):
    first = Room(Channels(temperature=20.0))
    second = Room(Channels(temperature=99.0, humidity=40.0))
    records = start_loop(first, second)
    wait_until(lambda: first.reads > 1 and second.reads > 1)
    assert (records[-1].temperature_c, records[-1].humidity_percent) == (20.0, 40.0)


def test_a_later_source_stands_in_while_an_earlier_one_fails(start_loop, wait_until):
    first, second = Room(RuntimeError("broken")), Room(Channels(temperature=30.0))
    records = start_loop(first, second)
    wait_until(lambda: records[-1].temperature_c == 30.0)
    first.channels = Channels(temperature=20.0)
    wait_until(lambda: records[-1].temperature_c == 20.0)
    first.channels = SystemExit("broken again")
    wait_until(lambda: records[-1].temperature_c == 30.0)


def test_simulated_is_said_only_when_a_simulated_value_is_used(start_loop, wait_until):
    real, made_up = Room(Channels(temperature=20.0)), Room(Channels(temperature=1.0))
    made_up.channels = Channels(temperature=1.0, is_simulated=True)
    records = start_loop(real, made_up)
    wait_until(lambda: real.reads > 2 and made_up.reads > 2)
    assert not records[-1].flags & SensorFlag.SIMULATED
    real.channels = RuntimeError("broken")
    wait_until(lambda: records[-1].flags & SensorFlag.SIMULATED)
    assert records[-1].temperature_c == 1.0


def test_a_failing_source_is_asked_less_and_less(start_loop, wait_until):
    failing, working = Room(RuntimeError("broken")), Room(Channels(cpu=1.0))
    start_loop(failing, working)
    wait_until(lambda: working.reads > 60)
    # 20 ms doubling: at most 7 questions in the time of 60 at the plain interval.
    assert 1 < failing.reads < 20


def test_a_record_is_as_old_as_its_oldest_reading(start_loop, wait_until):
    slow = Room(Channels(temperature=20.0))
    gate = threading.Event()
    plain_read = slow.read

    def read_slowly():
        if slow.reads:
            gate.wait(30)
        return plain_read()

    slow.read = read_slowly
    records = start_loop(slow, Room(Channels(cpu=1.0)))
    wait_until(lambda: records[-1].temperature_c == 20.0)
    wait_until(lambda: not records[-1].flags & SensorFlag.TEMPERATURE)
    with_both = [r for r in records if r.flags & SensorFlag.TEMPERATURE and r.cpu_percent == 1.0]
    # The first may be as old as the other source's reading; then all have the slow one's age.
    assert len({record.monotonic_ns for record in with_both}) <= 2
    assert len(with_both) > 2
    assert records[-1].monotonic_ns > with_both[-1].monotonic_ns
    gate.set()


def test_nothing_is_published_after_the_end_and_sources_are_closed(start_loop, wait_until):
    room = Room(Channels(temperature=20.0))
    records = start_loop(room)
    wait_until(lambda: room.reads > 1)
    start_loop.loop.stop()
    assert room.is_closed
    published = len(records)
    witness = Room(Channels())
    start_loop(witness)
    wait_until(lambda: witness.reads > 5)
    assert len(records) == published
