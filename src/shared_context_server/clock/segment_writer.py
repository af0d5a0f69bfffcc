"""Writes records to a shared memory segment that other processes read."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from shared_context_server.clock.errors import (
    SegmentClosedError,
    SegmentInUseError,
)
from shared_context_server.clock.log import Logger
from shared_context_server.clock.segment import (
    check_prefix,
    create_segment,
    is_current,
    unlink_segment,
)
from shared_context_server.clock.segment_layout import SegmentLayout
from shared_context_server.clock.seqlock import open_writer
from shared_context_server.clock.writer_lock import WriterLock, is_process_alive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

logger = Logger(__name__)

WATCH_S = 2.0
WATCH_STEP_S = 0.001
NO_NUMBER = bytes(4)


class SegmentWriter:
    """The one writer of the segment that `layout` describes, named `prefix` + the layout's name.

    It holds a lock of the kernel, so a second writer is refused while this process lives. A segment
    that a dead writer left is taken over, and its readers go on. If it is not certain that the
    writer is dead, because another program made the segment, the segment is watched for `watch_s`:
    if it changes, it has a writer. Choose more than the time between two writes of that program.

    Raises WriterAlreadyRunningError, SegmentInUseError, SegmentAccessError or OptionError. Threads
    may share a writer; a process that was forked from the writer's cannot write.
    """

    def __init__(
        self,
        layout: SegmentLayout,
        prefix: str = "",
        *,
        watch_s: float = WATCH_S,
        lock: WriterLock | None = None,
    ) -> None:
        """`lock`: one that the caller holds, for several segments of one writer."""
        self.layout = layout
        self.name = check_prefix(prefix) + layout.name
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._record: bytes | None = None
        self._is_open = False
        with ExitStack() as stack:
            self._own_lock = None
            if lock is None:
                self._own_lock = stack.enter_context(WriterLock(prefix, layout.lock_name))
            self._segment = create_segment(
                self.name, layout.size, lambda read: self._require_dead(read, watch_s)
            )
            self._write = open_writer(self._segment.view, layout.sequence_word)
            self._releases = stack.pop_all()
        self._is_open = True
        _WRITERS.add(self)
        if not self._segment.was_created:
            logger.info("took over segment %r from a writer that no longer runs", self.name)

    def write(self, **values: Any) -> None:
        """Replace the record. All fields of the layout are given. Raises OptionError."""
        self.layout.require_names(values)
        meanings = {
            "pid": self._pid,
            "version": self.layout.version,
            "record_size": self.layout.size,
            "monotonic_ns": time.monotonic_ns(),
        }
        self.write_record(self.layout.pack({**values, **meanings}))

    def write_record(self, record: bytes) -> None:
        """Replace the record by one that is packed already. The sequence in it is ignored."""
        with self._lock:
            if not self._is_open:
                raise SegmentClosedError(self.name)
            self._record = record
            self._write(record)

    def restore(self) -> bool:
        """Create the segment again if another process unlinked it. Return whether that was so.

        A reader with `multiprocessing.shared_memory` on Python before 3.13 does that at its exit:
        its resource tracker unlinks the segments that it had attached. So call this now and then.
        """
        if is_current(self._segment, if_unknown=True):
            return False
        logger.warning(
            "another process unlinked segment %r: creating it again. (A reader that uses "
            "multiprocessing.shared_memory on Python < 3.13 does this when it exits.)",
            self.name,
        )
        with self._lock:
            self._mark_ended()
            self._segment = create_segment(
                self.name, self.layout.size, lambda read: self._require_dead(read, WATCH_S)
            )
            self._write = open_writer(self._segment.view, self.layout.sequence_word)
            if self._record is not None:
                self._write(self._record)
        return True

    def close(self) -> None:
        """Mark the record as invalid for attached readers, unlink the segment, release the lock."""
        with self._lock:
            if not self._is_open:
                return
            self._is_open = False
            self._mark_ended()
            unlink_segment(self._segment)
            self._releases.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _mark_ended(self) -> None:
        """Clear the flags; without flags, the pid."""
        at = self.layout.offsets.get("flags", self.layout.offsets.get("pid"))
        if self._record is not None and at is not None:
            self._write(self._record[:at] + NO_NUMBER + self._record[at + 4 :])

    def _require_dead(self, read: Callable[[], bytes], watch_s: float) -> None:
        """Raise SegmentInUseError if another process writes to the segment that was found.

        The caller holds the lock, so another SegmentWriter of this segment does not live. A record
        of our layout whose pid is no other living process needs no second look.
        """
        layout, found = self.layout, read()
        if not any(found):
            return
        if "pid" in layout.offsets and "version" in layout.offsets and len(found) >= layout.size:
            fields = layout.struct.unpack_from(found)
            pid, version = fields[layout.indexes["pid"]], fields[layout.indexes["version"]]
            is_ours = layout.version != 0 and version == layout.version
            if is_ours and (pid in (0, self._pid) or not is_process_alive(pid)):
                return
        deadline_s = time.monotonic() + watch_s
        while time.monotonic() < deadline_s:
            if read() != found:
                raise SegmentInUseError(self.name)
            time.sleep(WATCH_STEP_S)

    def _leave_to_parent(self) -> None:
        """In a forked process: the segment and the lock stay the parent's."""
        self._is_open = False
        self._lock = threading.Lock()
        self._releases.pop_all()
        if self._own_lock is not None:
            self._own_lock.leave_to_parent()


_WRITERS: weakref.WeakSet[SegmentWriter] = weakref.WeakSet()


def _leave_all_to_parent() -> None:
    for writer in list(_WRITERS):
        writer._leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_to_parent)
