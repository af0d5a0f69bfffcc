"""The records of the two segments, with access to the fields by name."""

import ctypes


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
