"""Log lines of what goes wrong again and again: at once, then one a minute that says how often."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from structlog.stdlib import BoundLogger

INTERVAL_S = 60.0
MAX_KINDS = 100  # kinds of lines that are told apart; of more, each is written


@dataclass(slots=True)
class _Kind:
    written_at: float
    suppressed: int = 0


class RepeatedLines:
    """Writes errors of one kind once in `interval_s`. May be used by any thread."""

    def __init__(
        self,
        logger: BoundLogger,
        *,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._interval_s = interval_s
        self._clock = clock
        self._kinds: dict[tuple[str, str], _Kind] = {}
        self._lock = threading.Lock()

    def error(self, event: str, *, reason: str, **facts: object) -> None:
        """Write the line, or count it, if one of this event and reason was written just now."""
        with self._lock:
            now = self._clock()
            kind = self._kinds.get((event, reason))
            if kind is not None and now - kind.written_at < self._interval_s:
                kind.suppressed += 1
                return
            suppressed = 0 if kind is None else kind.suppressed
            if kind is not None or len(self._kinds) < MAX_KINDS:
                self._kinds[event, reason] = _Kind(now)
        if suppressed:
            facts["suppressed"] = suppressed
        self._logger.error(event, reason=reason, **facts)

    def forget(self) -> None:
        """Write the next line of every kind."""
        with self._lock:
            self._kinds.clear()
