"""The binary layout of the two segments: 64 bytes each, little-endian. docs/clock.md describes it.

`records` has types that give access to the fields by name. The `Struct` of the same fields packs and
unpacks them as one tuple, which is faster.
"""

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
