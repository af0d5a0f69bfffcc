import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_context_server.clock import ClockRecord, SensorFlag, SensorRecord
from shared_context_server.clock.layout import (
    CLOCK_STRUCT,
    RECORD_SIZE,
    SENSOR_STRUCT,
    clock_segment_name,
    clock_stale_after_ns,
    encode_clock,
    encode_sensors,
    sensor_segment_name,
    sensor_stale_after_ns,
)

CLOCK_FIELDS = [
    ("time_s", 0, "<d", 1.5e9),
    ("last_sync_s", 8, "<d", 1.25e9),
    ("sequence", 16, "<I", 7),
    ("flags", 20, "<I", 3),
    ("monotonic_ns", 24, "<Q", 2**60),
    ("offset_s", 32, "<d", -0.5),
    ("error_bound_s", 40, "<d", math.inf),
    ("pid", 48, "<I", 2**32 - 1),
    ("version", 52, "<I", 1),
    ("tick_period_us", 56, "<I", 1000),
    ("sensor_interval_ms", 60, "<I", 2000),
]
SENSOR_FIELDS = [
    ("temperature_c", 0, "<d", -40.25),
    ("humidity_percent", 8, "<d", 45.5),
    ("sequence", 16, "<I", 9),
    ("flags", 20, "<I", 0x13F),
    ("monotonic_ns", 24, "<Q", 2**61),
    ("cpu_percent", 32, "<d", 12.5),
    ("memory_percent", 40, "<d", 50.0),
    ("pid", 48, "<I", 1234),
    ("version", 52, "<I", 1),
    ("load1", 56, "<d", 0.75),
]

numbers = st.floats(allow_nan=False)
words = st.integers(0, 2**32 - 1)
channel = st.none() | st.floats(-1e300, 1e300)


@pytest.mark.parametrize(
    "record_type, packing, fields",
    [(ClockRecord, CLOCK_STRUCT, CLOCK_FIELDS), (SensorRecord, SENSOR_STRUCT, SENSOR_FIELDS)],
)
def test_every_field_stands_where_the_contract_says(record_type, packing, fields):
    data = bytearray(RECORD_SIZE)
    for _, offset, code, value in fields:
        struct.pack_into(code, data, offset, value)
    record = record_type.from_buffer_copy(data)
    assert {name: getattr(record, name) for name, *_ in fields} == {
        name: value for name, _, _, value in fields
    }
    assert packing.unpack(data) == tuple(value for *_, value in fields)
    assert packing.size == RECORD_SIZE


@given(
    time_s=numbers,
    last_sync_s=numbers,
    flags=words,
    monotonic_ns=st.integers(0, 2**64 - 1),
    offset_s=numbers,
    error_bound_s=numbers,
    pid=words,
    tick_period_us=words,
    sensor_interval_ms=words,
)
def test_a_clock_record_decodes_to_what_was_encoded(**fields):
    record = ClockRecord.from_buffer_copy(encode_clock(**fields))
    assert {name: getattr(record, name) for name in fields} == fields
    assert (record.version, record.sequence) == (1, 0)


@given(channel, channel, channel, channel, channel, st.booleans())
def test_an_absent_channel_is_nan_with_its_bit_clear(
    temperature, humidity, cpu, memory, load1, simulated
):
    given_values = (temperature, humidity, cpu, memory, load1)
    names = ("temperature_c", "humidity_percent", "cpu_percent", "memory_percent", "load1")
    present = {
        name: value for name, value in zip(names, given_values, strict=True) if value is not None
    }
    record = SensorRecord.from_buffer_copy(
        encode_sensors(**present, simulated=simulated, monotonic_ns=1, pid=2)
    )
    for bit, name in enumerate(names, start=1):
        assert bool(record.flags & 1 << bit) == (name in present)
        value = getattr(record, name)
        assert value == present[name] if name in present else math.isnan(value)
    # All that a reader of the first 24 bytes looks at.
    first, second, _, flags = struct.unpack("<ddII", bytes(record)[:24])
    assert bool(flags & 1) == ({"temperature_c", "humidity_percent"} <= present.keys())
    assert not flags & 1 or math.isfinite(first + second)
    assert bool(record.flags & SensorFlag.SIMULATED) == simulated


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_channel_that_is_no_finite_number_is_absent(value):
    data = encode_sensors(temperature_c=value, humidity_percent=40.0, monotonic_ns=1, pid=2)
    record = SensorRecord.from_buffer_copy(data)
    assert record.flags == SensorFlag.HUMIDITY
    assert math.isnan(record.temperature_c)


def test_segments_are_named_by_plain_concatenation():
    assert clock_segment_name("") == "time_daemon_shm"
    assert clock_segment_name("a-") == "a-time_daemon_shm"
    assert sensor_segment_name("a-") == "a-sensor_data_shm"


@pytest.mark.parametrize(
    "tick_period_us, stale_after_s", [(0, 0.25), (1000, 0.25), (5000, 0.25), (100_000, 5.0)]
)
def test_a_clock_is_stale_after_fifty_ticks_but_not_before_a_quarter_second(
    tick_period_us, stale_after_s
):
    assert clock_stale_after_ns(tick_period_us) == stale_after_s * 1e9


@pytest.mark.parametrize(
    "sensor_interval_ms, stale_after_s", [(0, 3), (100, 2), (1000, 3), (10_000, 30)]
)
def test_sensors_are_stale_after_three_intervals_but_not_before_two_seconds(
    sensor_interval_ms, stale_after_s
):
    assert sensor_stale_after_ns(sensor_interval_ms) == stale_after_s * 1e9
