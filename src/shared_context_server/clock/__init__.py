"""Readers for the clock and the sensors that a daemon keeps in shared memory.

A program that only reads imports this package. `shared_context_server.clock.daemon` is the daemon.
"""

from shared_context_server.clock.errors import (
    ClockError,
    ClockNotRunningError,
    DaemonAlreadyRunningError,
    OptionError,
    ReaderClosedError,
    SegmentAccessError,
    SegmentLayoutError,
    UnstableRecordError,
)
from shared_context_server.clock.layout import ClockFlag, ClockRecord, SensorFlag, SensorRecord
from shared_context_server.clock.reader import (
    ClockReader,
    ClockReading,
    SensorReader,
    SensorReading,
)

__all__ = [
    "ClockError",
    "ClockFlag",
    "ClockNotRunningError",
    "ClockReader",
    "ClockReading",
    "ClockRecord",
    "DaemonAlreadyRunningError",
    "OptionError",
    "ReaderClosedError",
    "SegmentAccessError",
    "SegmentLayoutError",
    "SensorFlag",
    "SensorReader",
    "SensorReading",
    "SensorRecord",
    "UnstableRecordError",
]
