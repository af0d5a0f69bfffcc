"""Reads the clock and the sensors from shared memory in a few hundred nanoseconds.

When a record is old, a reader checks whether a new segment has the name. So a restart of the daemon
does not disturb it.
"""

from collections.abc import Callable
from time import monotonic_ns
from typing import Generic, NamedTuple, TypeVar

from shared_context_server.clock.attachment import AttachingReader, Fields
from shared_context_server.clock.errors import ClockError, ClockNotRunningError, start_command
from shared_context_server.clock.layout import (
    CLOCK_LAYOUT,
    CLOCK_STALE_FLOOR_NS,
    DRIFT,
    SENSOR_LAYOUT,
    SENSOR_STALE_FLOOR_NS,
    clock_stale_after_ns,
    sensor_stale_after_ns,
)
from shared_context_server.clock.records import ClockRecord, SensorRecord
from shared_context_server.clock.segment import Segment
from shared_context_server.clock.segment_layout import SegmentLayout
from shared_context_server.clock.seqlock import open_reader

RecordT = TypeVar("RecordT", ClockRecord, SensorRecord)

INFINITE = float("inf")
new_tuple = tuple.__new__
"""Makes a NamedTuple without the checks of its constructor, in half the time."""


class ClockReading(NamedTuple):
    """The time now. Times are seconds since 1970 UTC.

    The true time lies between `earliest` and `latest`. Both are None while the daemon does not
    know the error of its clock. `sequence` counts the daemon's ticks, modulo 2**31.
    """

    time: float
    earliest: float | None
    latest: float | None
    age_s: float
    stale: bool
    synchronized: bool
    sequence: int


class SensorReading(NamedTuple):
    """The latest values, in °C, % relative humidity, %, % and processes.

    A value is None if there is no such sensor, or if it has no reading now. A stale reading keeps
    its last values. `sequence` counts the daemon's writes, modulo 2**31.
    """

    temperature: float | None
    humidity: float | None
    cpu: float | None
    memory: float | None
    load1: float | None
    simulated: bool
    age_s: float
    stale: bool
    sequence: int


class _Reader(AttachingReader, Generic[RecordT]):
    """Base class of both readers: `read` copies the whole record."""

    def __init__(
        self,
        layout: SegmentLayout,
        prefix: str,
        owner: str | int | None,
        record_type: type[RecordT],
        trusted_for_ns: int,
    ) -> None:
        super().__init__(layout, prefix, owner)
        self._copy_view: Callable[[memoryview | bytes], RecordT] = record_type.from_buffer_copy
        self._trusted_for_ns = trusted_for_ns
        self._check_at_ns = 0
        self._copy_record: Callable[[], RecordT] = self._attach_and_copy_record

    def read(self) -> RecordT:
        """A copy of the record. If the writer stopped in the middle of a write, this is the last
        record that this reader has read.

        Raises ClockNotRunningError, UnstableRecordError or another ClockError.
        """
        record = self._copy_record()
        if monotonic_ns() < self._check_at_ns:
            return record
        return self._check_age(record)

    def close(self) -> None:
        """Detach from the segment. The segment stays, for its daemon and other readers."""
        super().close()
        self._copy_record = self._refuse

    def _make_not_found_error(self) -> ClockError:
        return ClockNotRunningError(self.prefix, self.segment)

    def _find_start_command(self) -> str:
        return start_command(self.prefix)

    def _check_age(self, record: RecordT) -> RecordT:
        trusted_until_ns = record.monotonic_ns + self._trusted_for_ns
        if monotonic_ns() < trusted_until_ns:
            self._check_at_ns = trusted_until_ns
            return record
        return self._copy_record() if self._reattach() else record

    def _attach_and_copy_record(self) -> RecordT:
        self._attach_first()
        return self._copy_record()

    def _open_copies(self, segment: Segment) -> None:
        super()._open_copies(segment)
        self._check_at_ns = 0
        self._copy_record = open_reader(
            segment.view,
            self.layout.sequence_word,
            self._copy_view,
            self._get_last_record,
            self._last,
        )

    def _get_last_record(self, sequence: int) -> RecordT:
        """The result while the writer is in the middle of a write. Its age shows that it is old."""
        if self._reattach():
            return self._copy_record()
        return self._copy_view(self._get_last_bytes(sequence))

    def _get_last_fields(self, sequence: int) -> Fields:
        if self._reattach():
            return self._copy_fields()
        return self.layout.struct.unpack_from(self._get_last_bytes(sequence))

    def _get_last_bytes(self, sequence: int) -> bytes:
        """The bytes of the last record that `read` or `now` has read."""
        last: RecordT | Fields = self._require_last(self._last, sequence)
        return self.layout.struct.pack(*last) if isinstance(last, tuple) else bytes(last)


class ClockReader(_Reader[ClockRecord]):
    """Reads the clock of `prefix`. The first read attaches to the segment.

    The segment must belong to this process's user, to root or to `owner` (a user's name or
    number), and no other user may be able to write to it.
    """

    def __init__(self, prefix: str = "", *, owner: str | int | None = None) -> None:
        super().__init__(CLOCK_LAYOUT, prefix, owner, ClockRecord, CLOCK_STALE_FLOOR_NS)

    def now(self) -> ClockReading:
        """The time now: the time of the last tick plus the monotonic time since then.

        If the daemon has died, the result is stale but not wrong: the time goes on and the bounds
        widen. If it died in the middle of a write, this uses the last record that this reader has
        read. Raises ClockNotRunningError if there is no segment, UnstableRecordError if there is
        no complete record, or another ClockError.
        """
        fields = self._copy_fields()
        age_ns = monotonic_ns() - fields[4]
        stale = False
        if not 0 <= age_ns < CLOCK_STALE_FLOOR_NS or not fields[3] & 1:
            fields, age_ns, stale = self._refresh(fields)
        age_s = age_ns * 1e-9
        time = fields[0] + age_s
        bound = fields[6] + age_s * DRIFT
        synchronized = not stale and fields[3] & 2 != 0
        if bound < INFINITE:
            bounds = time - bound, time + bound
            return new_tuple(
                ClockReading, (time, *bounds, age_s, stale, synchronized, fields[2] >> 1)
            )
        return new_tuple(
            ClockReading, (time, None, None, age_s, stale, synchronized, fields[2] >> 1)
        )

    def _refresh(self, fields: Fields) -> tuple[Fields, int, bool]:
        """Look for a new segment if the record is stale. Return the record to use, its age in ns,
        and whether it is stale."""
        if self._is_stale(fields) and self._reattach():
            fields = self._copy_fields()
        return fields, max(0, monotonic_ns() - fields[4]), self._is_stale(fields)

    def _is_stale(self, fields: Fields) -> bool:
        age_ns = monotonic_ns() - fields[4]
        return not fields[3] & 1 or not 0 <= age_ns < clock_stale_after_ns(fields[9])


class SensorReader(_Reader[SensorRecord]):
    """Reads the sensors of `prefix`. The first read attaches to the segment.

    `owner` is as for ClockReader.
    """

    def __init__(self, prefix: str = "", *, owner: str | int | None = None) -> None:
        super().__init__(SENSOR_LAYOUT, prefix, owner, SensorRecord, SENSOR_STALE_FLOOR_NS)
        self._clock = ClockReader(prefix, owner=owner)

    def now(self) -> SensorReading:
        """The latest values. Raises like ClockReader.now."""
        fields = self._copy_fields()
        age_ns = monotonic_ns() - fields[4]
        stale = False
        if not 0 <= age_ns < SENSOR_STALE_FLOOR_NS:
            fields, age_ns, stale = self._refresh(fields)
        flags = fields[3]
        return new_tuple(
            SensorReading,
            (
                fields[0] if flags & 2 else None,
                fields[1] if flags & 4 else None,
                fields[5] if flags & 8 else None,
                fields[6] if flags & 16 else None,
                fields[9] if flags & 32 else None,
                flags & 256 != 0,
                age_ns * 1e-9,
                stale,
                fields[2] >> 1,
            ),
        )

    def close(self) -> None:
        self._clock.close()
        super().close()

    def _refresh(self, fields: Fields) -> tuple[Fields, int, bool]:
        stale_after_ns = sensor_stale_after_ns(self._find_interval_ms())
        if not 0 <= monotonic_ns() - fields[4] < stale_after_ns and self._reattach():
            fields = self._copy_fields()
        age_ns = monotonic_ns() - fields[4]
        return fields, max(0, age_ns), not 0 <= age_ns < stale_after_ns

    def _find_interval_ms(self) -> int:
        """The sensor interval from the clock's segment; 0 if that cannot be read."""
        try:
            return self._clock.read().sensor_interval_ms
        except ClockError:
            return 0
