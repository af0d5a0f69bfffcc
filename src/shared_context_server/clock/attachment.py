"""Attaches to a shared memory segment, and to its successor when another writer made one.

Base of all readers. A reader attaches at its first read and stays attached. It never writes and
never unlinks. Several threads may share one reader.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, Self

from shared_context_server.clock.errors import (
    ClockError,
    ReaderClosedError,
    SegmentAccessError,
    SegmentLayoutError,
    SegmentNotFoundError,
    UnstableRecordError,
)
from shared_context_server.clock.owners import find_trusted_users
from shared_context_server.clock.segment import Segment, attach_segment, check_prefix, is_current
from shared_context_server.clock.segment_layout import SegmentLayout
from shared_context_server.clock.seqlock import LastCopy, open_reader, open_unverified_reader

Fields = tuple[Any, ...]


class AttachingReader:
    """Attaches to the segment of `layout` and copies its fields.

    The segment must belong to this process's user, to root or to `owner` (a user's name or
    number), and no other user may be able to write to it.
    """

    def __init__(self, layout: SegmentLayout, prefix: str, owner: str | int | None) -> None:
        self.prefix = check_prefix(prefix)
        self.segment = prefix + layout.name
        self.layout = layout
        self._trusted_users = find_trusted_users(owner)
        self._attached: Segment | None = None
        self._last = LastCopy()
        self._copy_fields: Callable[[], Fields] = self._attach_and_copy_fields

    def close(self) -> None:
        """Detach from the segment. The segment stays, for its writer and other readers."""
        self._attached = None
        self._copy_fields = self._refuse

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _make_not_found_error(self) -> ClockError:
        return SegmentNotFoundError(self.segment)

    def _find_start_command(self) -> str | None:
        """The command that starts the writer, for error messages."""
        return None

    def _attach_and_copy_fields(self) -> Fields:
        self._attach_first()
        return self._copy_fields()

    def _attach_first(self) -> None:
        try:
            segment = attach_segment(self.segment, self.layout.size, self._trusted_users)
        except FileNotFoundError as exc:
            raise self._make_not_found_error() from exc
        if not self._attach(segment):
            raise self._make_not_found_error()

    def _reattach(self) -> bool:
        """Attach to the segment that has the name now, if it is a new one and has a record.

        A segment that cannot be used is ignored. Otherwise any user could stop a reader by
        creating one.
        """
        attached = self._attached
        try:
            if attached is None or is_current(attached, if_unknown=False):
                return False
            segment = attach_segment(self.segment, self.layout.size, self._trusted_users)
        except (FileNotFoundError, SegmentAccessError):
            return False
        return self._attach(segment)

    def _attach(self, segment: Segment) -> bool:
        if not self._check_layout(segment):
            return False
        self._attached = segment
        self._open_copies(segment)
        return True

    def _check_layout(self, segment: Segment) -> bool:
        """Whether the segment has a record. Raises SegmentLayoutError for one of another layout."""
        layout = self.layout
        fields = layout.struct.unpack_from(segment.view)
        if "version" not in layout.indexes or not layout.version:
            return any(segment.view)
        version = fields[layout.indexes["version"]]
        if version == 0:
            return False
        if version != layout.version:
            reason = f"it has version {version}, this program reads version {layout.version}"
            raise SegmentLayoutError(self.segment, reason)
        size = layout.size
        if "record_size" in layout.indexes:
            size = fields[layout.indexes["record_size"]]
        if size != layout.size:
            reason = f"its records have {size} bytes, this program reads {layout.size}"
            raise SegmentLayoutError(self.segment, reason)
        return True

    def _open_copies(self, segment: Segment) -> None:
        layout = self.layout
        if layout.is_verified:
            self._copy_fields = open_reader(
                segment.view,
                layout.sequence_word,
                layout.struct.unpack_from,
                self._get_last_fields,
                self._last,
            )
        else:
            self._copy_fields = open_unverified_reader(
                segment.view, layout.sequence_word, layout.struct.unpack_from
            )

    def _get_last_fields(self, sequence: int) -> Fields:
        """The result while the writer is in the middle of a write. Its age shows that it is old."""
        if self._reattach():
            return self._copy_fields()
        last: Fields = self._require_last(self._last, sequence)
        return last

    def _require_last(self, last: LastCopy, sequence: int) -> Any:
        if last.value is None:
            raise UnstableRecordError(self.segment, sequence, self._find_start_command())
        return last.value

    def _refuse(self) -> NoReturn:
        raise ReaderClosedError(self.segment)
