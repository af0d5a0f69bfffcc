"""Let background work in a thread leave the processor to the event loop.

The interpreter runs one thread at a time. The work is done in bursts of about a millisecond, which is
how long the loop may have to wait. After each burst the thread sleeps: as long as the burst took
while the loop has little to do, and many times as long while it is busy.
"""

from __future__ import annotations

import threading
import time

BURST_S = 0.001
_IDLE_SHARE = 0.2  # of its time; a loop that works less has little to do
_BUSY_SHARE = 0.6
IDLE_REST = 0.5  # times the burst
BUSY_REST = 30.0
_MEASURE_S = 0.1


class Pacer:
    """Paces the work of one thread beside the loop of the thread that makes this object.
    `idle_rest`, `busy_rest`: how many times as long as a burst it sleeps while the loop has little
    to do, and while it is busy."""

    def __init__(self, *, idle_rest: float = IDLE_REST, busy_rest: float = BUSY_REST) -> None:
        self._idle_rest = idle_rest
        self._busy_rest = busy_rest
        thread_id = threading.get_ident()
        self._loop_clock = (
            time.pthread_getcpuclockid(thread_id)
            if hasattr(time, "pthread_getcpuclockid")
            else None
        )
        self._measured_at = time.monotonic()
        self._loop_s = self._read_loop_s()
        self._rest = idle_rest
        self._burst_from = time.monotonic()

    def begin(self) -> None:
        """Note that the work begins."""
        self._burst_from = time.monotonic()

    def step(self) -> None:
        """Sleep if the burst has lasted long enough. To be called often."""
        burst_s = time.monotonic() - self._burst_from
        if burst_s < BURST_S:
            return
        self._measure()
        time.sleep(burst_s * self._rest)
        self._burst_from = time.monotonic()

    def _measure(self) -> None:
        now = time.monotonic()
        past_s = now - self._measured_at
        if past_s < _MEASURE_S:
            return
        loop_s = self._read_loop_s()
        share = (loop_s - self._loop_s) / past_s
        self._measured_at, self._loop_s = now, loop_s
        busy = min(1.0, max(0.0, (share - _IDLE_SHARE) / (_BUSY_SHARE - _IDLE_SHARE)))
        self._rest = self._idle_rest + busy * (self._busy_rest - self._idle_rest)

    def _read_loop_s(self) -> float:
        """Return the processor time that the loop's thread has used."""
        if self._loop_clock is None:
            return 0.0
        try:
            return time.clock_gettime(self._loop_clock)
        except OSError:  # the thread has ended
            return 0.0
