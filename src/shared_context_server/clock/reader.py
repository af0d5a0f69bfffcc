"""Reading the clock and the sensors: a copy out of shared memory, some hundred nanoseconds.

A reader attaches at its first read and stays attached. When a record is old it looks whether
another segment has the name now, so it outlives restarts of the daemon. It never writes and never
unlinks. One reader may serve several threads.
"""

from collections.abc import Callable
from struct import Struct
from time import monotonic_ns
from types import TracebackType
from typing import Any, Generic, NamedTuple, NoReturn, Self, TypeVar

from shared_context_server.clock.errors import (
    ClockError,
    ClockNotRunningError,
    ReaderClosedError,
    SegmentAccessError,
    SegmentLayoutError,
    UnstableRecordError,
)
from shared_context_server.clock.layout import (
    CLOCK_STALE_FLOOR_NS,
    CLOCK_STRUCT,
    DRIFT,
    LAYOUT_VERSION,
    SENSOR_STALE_FLOOR_NS,
    SENSOR_STRUCT,
    ClockRecord,
    SensorRecord,
    clock_segment_name,
    clock_stale_after_ns,
    sensor_segment_name,
    sensor_stale_after_ns,
)
from shared_context_server.clock.owners import find_trusted_users
from shared_context_server.clock.segment import Segment, attach_segment, check_prefix, is_current
from shared_context_server.clock.seqlock import Kept, open_reader

Fields = tuple[Any, ...]
RecordT = TypeVar("RecordT", ClockRecord, SensorRecord)

INFINITE = float("inf")
new_tuple = tuple.__new__
"""What a NamedTuple's constructor calls, without its checks: half the time."""


class ClockReading(NamedTuple):
    """What the time is now; times are seconds since 1970 UTC.

    The true time lies between `earliest` and `latest`, which are None while the daemon does not
    know how far off it may be. `sequence` counts the daemon's ticks, modulo 2**31.
    """

    time: float
    earliest: float | None
    latest: float | None
    age_s: float
    stale: bool
    synchronized: bool
    sequence: int


class SensorReading(NamedTuple):
    """The latest values: °C, % relative humidity, %, %, processes.

    None where there is no such sensor, or it gives nothing at present. A stale reading keeps its
    last values. `sequence` counts the daemon's writes, modulo 2**31.
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


class _Reader(Generic[RecordT]):
    """Attaching, re-attaching and raw reads: the same for both segments."""

    def __init__(
        self,
        prefix: str,
        segment: str,
        owner: str | int | None,
        record_type: type[RecordT],
        struct: Struct,
        trusted_for_ns: int,
    ) -> None:
        self.prefix = prefix
        self.segment = segment
        self._trusted_users = find_trusted_users(owner)
        self._copy_view: Callable[[memoryview | bytes], RecordT] = record_type.from_buffer_copy
        self._struct = struct
        self._kept = Kept()
        self._trusted_for_ns = trusted_for_ns
        self._attached: Segment | None = None
        self._check_at_ns = 0
        self._copy_record: Callable[[], RecordT] = self._attach_and_copy_record
        self._copy_fields: Callable[[], Fields] = self._attach_and_copy_fields

    def read(self) -> RecordT:
        """One whole record as it stands in the segment. While the writer stands, or has died, in
        the middle of a write: the last one that this reader has read.

        Raises ClockNotRunningError, UnstableRecordError or another ClockError.
        """
        record = self._copy_record()
        if monotonic_ns() < self._check_at_ns:
            return record
        return self._check_age(record)

    def close(self) -> None:
        """Let go of the segment. The segment itself stays, for its daemon and other readers."""
        self._attached = None
        self._copy_record = self._copy_fields = self._refuse

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check_age(self, record: RecordT) -> RecordT:
        trusted_until_ns = record.monotonic_ns + self._trusted_for_ns
        if monotonic_ns() < trusted_until_ns:
            self._check_at_ns = trusted_until_ns
            return record
        return self._copy_record() if self._reattach() else record

    def _attach_and_copy_record(self) -> RecordT:
        self._attach_first()
        return self._copy_record()

    def _attach_and_copy_fields(self) -> Fields:
        self._attach_first()
        return self._copy_fields()

    def _attach_first(self) -> None:
        try:
            segment = attach_segment(self.segment, self._trusted_users)
        except FileNotFoundError as exc:
            raise ClockNotRunningError(self.prefix, self.segment) from exc
        if not self._adopt(segment):
            raise ClockNotRunningError(self.prefix, self.segment)

    def _reattach(self) -> bool:
        """Move to the segment that has the name now, if it is another one with a record in it.

        One that may not be used is no successor: whoever puts it there does not take a reader's
        last record away.
        """
        attached = self._attached
        try:
            if attached is None or is_current(attached, if_unknown=False):
                return False
            segment = attach_segment(self.segment, self._trusted_users)
        except (FileNotFoundError, SegmentAccessError):
            return False
        return self._adopt(segment)

    def _adopt(self, segment: Segment) -> bool:
        version = self._struct.unpack_from(segment.view)[8]
        if version == 0:
            return False
        if version != LAYOUT_VERSION:
            reason = f"version {version}, this program knows {LAYOUT_VERSION}"
            raise SegmentLayoutError(self.segment, reason)
        self._attached = segment
        self._check_at_ns = 0
        self._copy_record = open_reader(
            segment.view, self._copy_view, self._recall_record, self._kept
        )
        self._copy_fields = open_reader(
            segment.view, self._struct.unpack_from, self._recall_fields, self._kept
        )
        return True

    def _recall_record(self, sequence: int) -> RecordT:
        """What to give while the writer stands in the middle of a write: its age tells the rest."""
        if self._reattach():
            return self._copy_record()
        return self._copy_view(self._find_kept(sequence))

    def _recall_fields(self, sequence: int) -> Fields:
        if self._reattach():
            return self._copy_fields()
        return self._struct.unpack_from(self._find_kept(sequence))

    def _find_kept(self, sequence: int) -> bytes:
        """The bytes of the last record that was read, by `read` or `now`."""
        kept: RecordT | Fields | None = self._kept.value
        if kept is None:
            raise UnstableRecordError(self.segment, self.prefix, sequence)
        return self._struct.pack(*kept) if isinstance(kept, tuple) else bytes(kept)

    def _refuse(self) -> NoReturn:
        raise ReaderClosedError(self.segment)


class ClockReader(_Reader[ClockRecord]):
    """Reads the clock of `prefix`. Creating one is free; the first read attaches.

    Only segments of this process's user, of root and of `owner`, a user's name or number, are
    believed, and only if nobody else may write to them.
    """

    def __init__(self, prefix: str = "", *, owner: str | int | None = None) -> None:
        name = clock_segment_name(check_prefix(prefix))
        super().__init__(prefix, name, owner, ClockRecord, CLOCK_STRUCT, CLOCK_STALE_FLOOR_NS)

    def now(self) -> ClockReading:
        """The time at this moment: the time at the last tick and the monotonic time since then.

        A dead daemon makes it stale, not wrong: the time goes on and the bounds widen, from the
        last record that this reader has read if the daemon died in the middle of a write. Raises
        ClockNotRunningError if there was no daemon to attach to, UnstableRecordError if it stands
        in the middle of a write and this reader has read nothing before, or another ClockError.
        """
        fields = self._copy_fields()
        age_ns = monotonic_ns() - fields[4]
        stale = False
        if not 0 <= age_ns < CLOCK_STALE_FLOOR_NS or not fields[3] & 1:
            fields, age_ns, stale = self._judge(fields)
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

    def _judge(self, fields: Fields) -> tuple[Fields, int, bool]:
        """The record to use, its age in ns, and whether it is stale, after a look for a new one."""
        if self._is_stale(fields) and self._reattach():
            fields = self._copy_fields()
        return fields, max(0, monotonic_ns() - fields[4]), self._is_stale(fields)

    def _is_stale(self, fields: Fields) -> bool:
        age_ns = monotonic_ns() - fields[4]
        return not fields[3] & 1 or not 0 <= age_ns < clock_stale_after_ns(fields[9])


class SensorReader(_Reader[SensorRecord]):
    """Reads the sensors of `prefix`. Creating one is free; the first read attaches.

    It believes the segments that a ClockReader of this `owner` believes.
    """

    def __init__(self, prefix: str = "", *, owner: str | int | None = None) -> None:
        name = sensor_segment_name(check_prefix(prefix))
        super().__init__(prefix, name, owner, SensorRecord, SENSOR_STRUCT, SENSOR_STALE_FLOOR_NS)
        self._clock = ClockReader(prefix, owner=owner)

    def now(self) -> SensorReading:
        """The latest values. Raises like ClockReader.now."""
        fields = self._copy_fields()
        age_ns = monotonic_ns() - fields[4]
        stale = False
        if not 0 <= age_ns < SENSOR_STALE_FLOOR_NS:
            fields, age_ns, stale = self._judge(fields)
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

    def _judge(self, fields: Fields) -> tuple[Fields, int, bool]:
        stale_after_ns = sensor_stale_after_ns(self._find_interval_ms())
        if not 0 <= monotonic_ns() - fields[4] < stale_after_ns and self._reattach():
            fields = self._copy_fields()
        age_ns = monotonic_ns() - fields[4]
        return fields, max(0, age_ns), not 0 <= age_ns < stale_after_ns

    def _find_interval_ms(self) -> int:
        """What the daemon says in its other segment; 0 if that one does not tell."""
        try:
            return self._clock.read().sensor_interval_ms
        except ClockError:
            return 0
