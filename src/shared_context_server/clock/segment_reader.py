"""Reads the records of a shared memory segment that a SegmentWriter or another program writes."""

from time import monotonic_ns
from typing import Any, NamedTuple

from shared_context_server.clock.attachment import AttachingReader, Fields
from shared_context_server.clock.segment_layout import SegmentLayout
from shared_context_server.clock.writer_lock import is_writer_alive

CHECK_EVERY_NS = 100_000_000
"""How often a reader checks whether another segment has the name. The check takes about 10 µs."""


class SegmentReading(NamedTuple):
    """One record.

    `values` has the fields of the layout as attributes. `valid`: the writer has not closed the
    segment, and bit 0 of `flags`, if the layout has flags, is set. `age_s`: since the write; if the
    layout has no `monotonic_ns`, since this reader first saw the record, and None until it has seen
    another one. `sequence` counts the writes, modulo 2**31 (2**32 if not verified). `verified`:
    the values are certainly from one write.
    """

    values: Any
    valid: bool
    age_s: float | None
    sequence: int
    writer_pid: int | None
    verified: bool


class SegmentReader(AttachingReader):
    """Reads the segment of `layout`, named `prefix` + the layout's name.

    The first read attaches. The segment must belong to this process's user, to root or to `owner`
    (a user's name or number), and no other user may be able to write to it. Raises OptionError.
    """

    def __init__(
        self, layout: SegmentLayout, prefix: str = "", *, owner: str | int | None = None
    ) -> None:
        super().__init__(layout, prefix, owner)
        self._check_at_ns = 0
        self._seen: tuple[int, int | None] | None = None

    def read(self) -> SegmentReading:
        """The current record. If the writer stopped in the middle of a write, the last one read.

        Raises SegmentNotFoundError, UnstableRecordError, SegmentAccessError, SegmentLayoutError or
        ReaderClosedError.
        """
        fields = self._copy_fields()
        if not self._is_valid(fields) or monotonic_ns() >= self._check_at_ns:
            self._check_at_ns = monotonic_ns() + CHECK_EVERY_NS
            if self._reattach():
                fields = self._copy_fields()
        layout = self.layout
        sequence = fields[layout.indexes["sequence"]]
        pid = self._find_pid(fields)
        return SegmentReading(
            layout.values_type._make([fields[index] for index in layout.value_indexes]),
            self._is_valid(fields),
            self._find_age_s(fields, sequence),
            sequence >> 1 if layout.is_verified else sequence,
            pid or None,
            layout.is_verified,
        )

    def is_writer_alive(self) -> bool | None:
        """Whether the writer of the segment runs. None if the layout cannot tell: see `age_s`.

        A lock that the kernel releases when the writer ends decides this. If this user may not ask
        for the lock, the pid does, which other containers cannot see.
        """
        if "pid" not in self.layout.indexes:
            return None
        pid = self._find_pid(self._copy_fields())
        return is_writer_alive(self.prefix, self.layout.lock_name, pid or 0)

    def _find_pid(self, fields: Fields) -> int | None:
        index = self.layout.indexes.get("pid")
        return None if index is None else fields[index]

    def _is_valid(self, fields: Fields) -> bool:
        flags = self.layout.indexes.get("flags")
        if flags is not None and not fields[flags] & 1:
            return False
        return self._find_pid(fields) != 0

    def _find_age_s(self, fields: Fields, sequence: int) -> float | None:
        index = self.layout.indexes.get("monotonic_ns")
        now_ns = monotonic_ns()
        if index is not None:
            written_ns: int = fields[index]
            return max(0, now_ns - written_ns) * 1e-9
        if self._seen is None:
            self._seen = (sequence, None)
        elif self._seen[0] != sequence:
            self._seen = (sequence, now_ns)
        since_ns = self._seen[1]
        return None if since_ns is None else (now_ns - since_ns) * 1e-9
