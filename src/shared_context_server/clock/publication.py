"""Publishes records in a shared memory segment. Used by the daemon."""

import logging
import threading

from shared_context_server.clock.segment import create_segment, is_current, unlink_segment
from shared_context_server.clock.seqlock import open_writer

logger = logging.getLogger(__name__)

FLAGS = slice(20, 24)
NO_FLAGS = bytes(4)


class PublishedSegment:
    """One segment that this process writes. The caller holds the writer lock of its prefix."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._segment = create_segment(name)
        self._write = open_writer(self._segment.view)
        self._record: bytes | None = None
        if not self._segment.was_created:
            logger.info("took over segment %r from a daemon that no longer runs", name)

    def write(self, record: bytes) -> None:
        with self._lock:
            self._record = record
            self._write(record)

    def restore(self) -> bool:
        """Create the segment again if another process unlinked it. Return whether that was so.

        A reader with `multiprocessing.shared_memory` on Python before 3.13 does that at its exit:
        its resource tracker unlinks the segments that it had attached.
        """
        if is_current(self._segment, if_unknown=True):
            return False
        logger.warning(
            "another process unlinked segment %r: creating it again. (A reader that uses "
            "multiprocessing.shared_memory on Python < 3.13 does this when it exits.)",
            self.name,
        )
        with self._lock:
            self._clear_flags()
            self._segment = create_segment(self.name)
            self._write = open_writer(self._segment.view)
            if self._record is not None:
                self._write(self._record)
        return True

    def close(self) -> None:
        """Mark the record as invalid for attached readers, and unlink the segment."""
        with self._lock:
            self._clear_flags()
            unlink_segment(self._segment)

    def _clear_flags(self) -> None:
        if self._record is not None:
            self._write(self._record[: FLAGS.start] + NO_FLAGS + self._record[FLAGS.stop :])
