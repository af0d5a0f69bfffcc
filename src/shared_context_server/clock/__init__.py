"""Readers for the clock and the sensors that a daemon keeps in shared memory, and segments of your own.

The daemon's segments and yours have the same parts: `SegmentLayout`, `SegmentWriter` and
`SegmentReader`. A program that only reads imports this package. `shared_context_server.clock.daemon` is the daemon.
"""

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
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
    from shared_context_server.clock.layout import ClockFlag, SensorFlag
    from shared_context_server.clock.reader import (
        ClockReader,
        ClockReading,
        SensorReader,
        SensorReading,
    )
    from shared_context_server.clock.records import ClockRecord, SensorRecord
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

_MODULES = {
    "ClockError": "errors",
    "ClockFlag": "layout",
    "ClockNotRunningError": "errors",
    "ClockReader": "reader",
    "ClockReading": "reader",
    "ClockRecord": "records",
    "DaemonAlreadyRunningError": "errors",
    "OptionError": "errors",
    "ReaderClosedError": "errors",
    "SegmentAccessError": "errors",
    "SegmentClosedError": "errors",
    "SegmentInUseError": "errors",
    "SegmentLayout": "segment_layout",
    "SegmentLayoutError": "errors",
    "SegmentNotFoundError": "errors",
    "SegmentReader": "segment_reader",
    "SegmentReading": "segment_reader",
    "SegmentWriter": "segment_writer",
    "SensorFlag": "layout",
    "SensorReader": "reader",
    "SensorReading": "reader",
    "SensorRecord": "records",
    "UnstableRecordError": "errors",
    "WriterAlreadyRunningError": "errors",
}
"""The module of each name. They are imported when a name is used: the daemon, which is part of this
package, needs no reader."""


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found
    return found
