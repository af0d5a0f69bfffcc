"""A clock and sensors in shared memory, kept by one small daemon and read without a call.

Readers import only this; the daemon is `shared_context_server.clock.daemon`.
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
