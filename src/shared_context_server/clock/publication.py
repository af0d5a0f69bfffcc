"""The daemon's side of a segment: written, kept where readers find it, unlinked at the end."""

import logging
import threading

from shared_context_server.clock.segment import create_segment, is_current, unlink_segment
from shared_context_server.clock.seqlock import open_writer

logger = logging.getLogger(__name__)

FLAGS = slice(20, 24)
NO_FLAGS = bytes(4)


class PublishedSegment:
    """One segment under its name. The caller holds the writer's lock of its prefix."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._segment = create_segment(name)
        self._write = open_writer(self._segment.view)
        self._record: bytes | None = None
        if not self._segment.was_created:
            logger.info("took over segment %r from a daemon that is gone", name)

    def write(self, record: bytes) -> None:
        with self._lock:
            self._record = record
            self._write(record)

    def restore(self) -> bool:
        """Publish anew if the name was taken away; whether it was.

        A foreign reader on Python before 3.13 does that when it exits: its resource tracker
        unlinks what it had attached to.
        """
        if is_current(self._segment, if_unknown=True):
            return False
        logger.warning(
            "segment %r was unlinked by another process: making it again. (A reader that uses "
            "multiprocessing.shared_memory on Python < 3.13 does this when it exits.)",
            self.name,
        )
        with self._lock:
            self._retire()
            self._segment = create_segment(self.name)
            self._write = open_writer(self._segment.view)
            if self._record is not None:
                self._write(self._record)
        return True

    def close(self) -> None:
        """Tell attached readers that this is over, and leave nothing behind."""
        with self._lock:
            self._retire()
            unlink_segment(self._segment)

    def _retire(self) -> None:
        if self._record is not None:
            self._write(self._record[: FLAGS.start] + NO_FLAGS + self._record[FLAGS.stop :])
