"""Readers for the clock and the sensors that a daemon keeps in shared memory, and segments of your own.

The daemon's segments and yours have the same parts: `SegmentLayout`, `SegmentWriter` and
`SegmentReader`. A program that only reads imports this package. `shared_context_server.clock.daemon` is the daemon.
"""

from shared_context_server.clock.errors import (
    ClockError,
    ClockNotRunningError,
    DaemonAlreadyRunningError,
    OptionError,
    ReaderClosedError,
    SegmentAccessError,
    SegmentClosedError,
    SegmentInUseError,
    SegmentLayoutError,
    SegmentNotFoundError,
    UnstableRecordError,
    WriterAlreadyRunningError,
)
from shared_context_server.clock.layout import ClockFlag, ClockRecord, SensorFlag, SensorRecord
from shared_context_server.clock.reader import (
    ClockReader,
    ClockReading,
    SensorReader,
    SensorReading,
)
from shared_context_server.clock.segment_layout import SegmentLayout
from shared_context_server.clock.segment_reader import SegmentReader, SegmentReading
from shared_context_server.clock.segment_writer import SegmentWriter

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
    "SegmentClosedError",
    "SegmentInUseError",
    "SegmentLayout",
    "SegmentLayoutError",
    "SegmentNotFoundError",
    "SegmentReader",
    "SegmentReading",
    "SegmentWriter",
    "SensorFlag",
    "SensorReader",
    "SensorReading",
    "SensorRecord",
    "UnstableRecordError",
    "WriterAlreadyRunningError",
]
