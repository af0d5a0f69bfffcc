"""The binary layout of the two segments: 64 bytes each, little-endian. docs/clock.md describes it.

A record type gives access to the fields by name. The `Struct` of the same fields packs and unpacks
them as one tuple, which is faster.
"""

import ctypes
import math
from enum import IntFlag

from shared_context_server.clock.segment_layout import SegmentLayout

RECORD_SIZE = 64
LAYOUT_VERSION = 1


TICKS_UNTIL_STALE = 50
CLOCK_STALE_FLOOR_NS = 250_000_000
INTERVALS_UNTIL_STALE = 3
SENSOR_STALE_FLOOR_NS = 2_000_000_000

DRIFT = 50e-6
"""The largest frequency error of a free-running clock, in seconds a second. PC crystals stay within
it, and other clock-bound daemons assume the same."""


class ClockFlag(IntFlag):
    VALID = 1
    SYNCHRONIZED = 2


class SensorFlag(IntFlag):
    """`VALID`: temperature and humidity both have a value, so a reader that knows only the first 24
    bytes needs no other bit. Each channel also has a bit of its own."""

    VALID = 1 << 0
    TEMPERATURE = 1 << 1
    HUMIDITY = 1 << 2
    CPU = 1 << 3
    MEMORY = 1 << 4
    LOAD = 1 << 5
    SIMULATED = 1 << 8


TEMPERATURE_AND_HUMIDITY = SensorFlag.TEMPERATURE | SensorFlag.HUMIDITY


class _Record(ctypes.LittleEndianStructure):
    def __repr__(self) -> str:
        values = ", ".join(f"{field[0]}={getattr(self, field[0])!r}" for field in self._fields_)
        return f"{type(self).__name__}({values})"


class ClockRecord(_Record):
    """A copy of the record of the clock segment.

    `tick_period_us` and `sensor_interval_ms` tell a reader when a record is stale. They stand in
    the reserved word of version 1; 0 means 1000 Hz and 1 s.
    """

    time_s: float
    last_sync_s: float
    sequence: int
    flags: int
    monotonic_ns: int
    offset_s: float
    error_bound_s: float
    pid: int
    version: int
    tick_period_us: int
    sensor_interval_ms: int

    _fields_ = (
        ("time_s", ctypes.c_double),
        ("last_sync_s", ctypes.c_double),
        ("sequence", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("monotonic_ns", ctypes.c_uint64),
        ("offset_s", ctypes.c_double),
        ("error_bound_s", ctypes.c_double),
        ("pid", ctypes.c_uint32),
        ("version", ctypes.c_uint32),
        ("tick_period_us", ctypes.c_uint32),
        ("sensor_interval_ms", ctypes.c_uint32),
    )


class SensorRecord(_Record):
    """A copy of the record of the sensor segment. An absent channel is NaN, and its flag is clear."""

    temperature_c: float
    humidity_percent: float
    sequence: int
    flags: int
    monotonic_ns: int
    cpu_percent: float
    memory_percent: float
    pid: int
    version: int
    load1: float

    _fields_ = (
        ("temperature_c", ctypes.c_double),
        ("humidity_percent", ctypes.c_double),
        ("sequence", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("monotonic_ns", ctypes.c_uint64),
        ("cpu_percent", ctypes.c_double),
        ("memory_percent", ctypes.c_double),
        ("pid", ctypes.c_uint32),
        ("version", ctypes.c_uint32),
        ("load1", ctypes.c_double),
    )


CLOCK_LAYOUT = SegmentLayout.exact(
    "time_daemon_shm",
    {
        "time_s": "d",
        "last_sync_s": "d",
        "sequence": "I",
        "flags": "I",
        "monotonic_ns": "Q",
        "offset_s": "d",
        "error_bound_s": "d",
        "pid": "I",
        "version": "I",
        "tick_period_us": "I",
        "sensor_interval_ms": "I",
    },
    version=LAYOUT_VERSION,
    lock_name="time_daemon_lock",
)
SENSOR_LAYOUT = SegmentLayout.exact(
    "sensor_data_shm",
    {
        "temperature_c": "d",
        "humidity_percent": "d",
        "sequence": "I",
        "flags": "I",
        "monotonic_ns": "Q",
        "cpu_percent": "d",
        "memory_percent": "d",
        "pid": "I",
        "version": "I",
        "load1": "d",
    },
    version=LAYOUT_VERSION,
    lock_name="time_daemon_lock",
)
CLOCK_STRUCT = CLOCK_LAYOUT.struct
SENSOR_STRUCT = SENSOR_LAYOUT.struct


def clock_segment_name(prefix: str) -> str:
    return prefix + CLOCK_LAYOUT.name


def sensor_segment_name(prefix: str) -> str:
    return prefix + SENSOR_LAYOUT.name


def clock_stale_after_ns(tick_period_us: int) -> int:
    """Age at which a clock record is stale: 50 ticks, at least 250 ms."""
    return max(TICKS_UNTIL_STALE * tick_period_us * 1000, CLOCK_STALE_FLOOR_NS)


def sensor_stale_after_ns(sensor_interval_ms: int) -> int:
    """Age at which a sensor record is stale: 3 intervals (of 1 s by default), at least 2 s."""
    interval_ns = (sensor_interval_ms or 1000) * 1_000_000
    return max(INTERVALS_UNTIL_STALE * interval_ns, SENSOR_STALE_FLOOR_NS)


def encode_clock(
    *,
    time_s: float,
    last_sync_s: float,
    flags: int,
    monotonic_ns: int,
    offset_s: float,
    error_bound_s: float,
    pid: int,
    tick_period_us: int,
    sensor_interval_ms: int,
) -> bytes:
    """A clock record with sequence word 0. The seqlock's writer fills it in."""
    return CLOCK_STRUCT.pack(
        time_s,
        last_sync_s,
        0,
        flags,
        monotonic_ns,
        offset_s,
        error_bound_s,
        pid,
        LAYOUT_VERSION,
        tick_period_us,
        sensor_interval_ms,
    )


def encode_sensors(
    *,
    temperature_c: float = math.nan,
    humidity_percent: float = math.nan,
    cpu_percent: float = math.nan,
    memory_percent: float = math.nan,
    load1: float = math.nan,
    simulated: bool = False,
    monotonic_ns: int,
    pid: int,
) -> bytes:
    """A sensor record with sequence word 0. A channel that is not a finite number becomes NaN and has
    no flag; `VALID` is set only if temperature and humidity both have theirs."""
    channels = (
        (temperature_c, SensorFlag.TEMPERATURE),
        (humidity_percent, SensorFlag.HUMIDITY),
        (cpu_percent, SensorFlag.CPU),
        (memory_percent, SensorFlag.MEMORY),
        (load1, SensorFlag.LOAD),
    )
    flags = SensorFlag(0)
    for value, flag in channels:
        if math.isfinite(value):
            flags |= flag
    if flags & TEMPERATURE_AND_HUMIDITY == TEMPERATURE_AND_HUMIDITY:
        flags |= SensorFlag.VALID
    if simulated:
        flags |= SensorFlag.SIMULATED
    temperature_c, humidity_percent, cpu_percent, memory_percent, load1 = (
        value if flags & flag else math.nan for value, flag in channels
    )
    return SENSOR_STRUCT.pack(
        temperature_c,
        humidity_percent,
        0,
        flags,
        monotonic_ns,
        cpu_percent,
        memory_percent,
        pid,
        LAYOUT_VERSION,
        load1,
    )
