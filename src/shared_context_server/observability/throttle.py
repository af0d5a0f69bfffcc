"""A log filter that passes one line of each kind per minute and counts the others.

Otherwise malformed requests, or a failure that repeats, could fill the log. Lines of libraries have the
same kind if the same line of code logs them, at WARNING or above. Lines of this package are throttled
only with `throttle=True`, and the event is their kind. `throttle="…"` distinguishes kinds of one event;
it must be a constant. So the number of kinds is limited.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from traceback import walk_tb
from types import TracebackType

INTERVAL_S = 60.0
FIELD = "throttle"
_DUE = "is_due"  # marks a record that was held back and is now written
_TRACEBACK_FRAMES = 1  # the innermost one: another failure is another kind


@dataclass(slots=True)
class _Kind:
    shown_at: float
    held_back: int = 0
    latest: logging.LogRecord | None = None


class Throttle(logging.Filter):
    """Passes the first line of a kind, and one line for each further interval. `held_back` is the number
    of the other lines. A timer calls `flush`, which writes lines that are still held back.

    It is a filter of this package's loggers, so that it also works with the handlers of a host
    program, and of this package's handler, for the lines of libraries.
    """

    def __init__(self, own_root: str, interval_s: float = INTERVAL_S) -> None:
        super().__init__()
        self._own_root = own_root
        self._interval_s = interval_s
        self._kinds: dict[tuple[object, ...], _Kind] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def forget(self) -> None:
        """Reset the filter: the next line of every kind passes."""
        with self._lock:
            self._kinds.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, _DUE, False):
            return True
        kind_of = self._find_kind(record)
        if kind_of is None:
            return True
        now = time.monotonic()
        with self._lock:
            kind = self._kinds.get(kind_of)
            if kind is None or now - kind.shown_at >= self._interval_s:
                held_back = 0 if kind is None else kind.held_back
                self._kinds[kind_of] = _Kind(now)
                _note(record, held_back)
                return True
            kind.held_back += 1
            kind.latest = record
            self._start_timer()
        return False

    def flush(self) -> None:
        """Write the latest line of each kind whose lines were held back for an interval."""
        now = time.monotonic()
        due: list[logging.LogRecord] = []
        with self._lock:
            self._timer = None
            for kind in self._kinds.values():
                if kind.latest is None:
                    continue
                if now - kind.shown_at < self._interval_s:
                    self._start_timer()
                    continue
                _note(kind.latest, kind.held_back - 1)
                due.append(kind.latest)
                kind.shown_at, kind.held_back, kind.latest = now, 0, None
        for record in due:
            setattr(record, _DUE, True)
            logging.getLogger(record.name).callHandlers(record)

    def _find_kind(self, record: logging.LogRecord) -> tuple[object, ...] | None:
        """The kind of the line; None if it is never held back."""
        if not record.name.startswith(self._own_root):
            if record.levelno < logging.WARNING:
                return None
            return (
                record.name,
                record.pathname,
                record.lineno,
                record.levelno,
                *_find_fault(record),
            )
        if isinstance(record.msg, dict) and (kind := record.msg.pop(FIELD, False)):
            return (record.name, record.msg.get("event"), kind)
        return None

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(self._interval_s, self.flush)
            self._timer.daemon = True
            self._timer.start()


def _note(record: logging.LogRecord, held_back: int) -> None:
    if held_back <= 0:
        return
    if isinstance(record.msg, dict):
        record.msg["held_back"] = held_back
    else:
        record.msg = f"{record.getMessage()} ({held_back} more like this were held back)"
        record.args = None


def _find_fault(record: logging.LogRecord) -> tuple[object, ...]:
    """The exception of a record: its type, its cause's type, and where it was raised."""
    if not record.exc_info or record.exc_info[0] is None:
        return ()
    kind, error, traceback = record.exc_info
    return (kind, type(error.__cause__), *_innermost_frames(traceback))


def _innermost_frames(traceback: TracebackType | None) -> tuple[object, ...]:
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(traceback)]
    return tuple(frames[-_TRACEBACK_FRAMES:])
