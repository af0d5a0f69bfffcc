"""Time from NTP servers. A thread for each server queries it, so ticks never wait for an answer."""

import math
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence

from shared_context_server.clock.errors import TimeServerError, TimeServerRefusedError
from shared_context_server.clock.log import Logger
from shared_context_server.clock.timesync.clock_selection import ClockSelection, SelectedTime
from shared_context_server.clock.timesync.discipline import DisciplinedClock
from shared_context_server.clock.timesync.exchange import ServerAddress, query_server
from shared_context_server.clock.timesync.intersection import Sample
from shared_context_server.clock.timesync.timekeeper import NS, Tick, read_clock_pair

logger = Logger(__name__)

BURST_ANSWERS = 4
BURST_INTERVAL_S = 2.0
"""The first queries follow each other quickly, like ntpd's iburst."""
MAX_INTERVAL_S = 1024.0
SILENT_AFTER_INTERVALS = 4
SILENT_AFTER_FLOOR_S = 12.0
SLEEP_NOTICED_NS = NS // 2


def read_slept_ns() -> int | None:
    """How long this machine was suspended since boot, in ns; None if unknown.

    The monotonic clock stops during a suspend.
    """
    if sys.platform != "linux":
        return None
    before_ns = time.monotonic_ns()
    slept_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - before_ns
    # If this process was paused between the two readings, the difference is not a suspend.
    return slept_ns if time.monotonic_ns() - before_ns < SLEEP_NOTICED_NS // 10 else None


class NtpTime:
    """A clock that follows the majority of `servers`.

    Before the first selected answer it is the system clock with unknown error. `hold_s` after the
    last selected answer it is no longer synchronized.
    """

    def __init__(
        self,
        servers: Sequence[ServerAddress],
        interval_s: float,
        hold_s: float,
        read_slept: Callable[[], int | None] = read_slept_ns,
    ) -> None:
        self._servers = servers
        self._interval_s = interval_s
        self._hold_ns = int(hold_s * NS)
        self._read_slept = read_slept
        silent_after_s = max(SILENT_AFTER_INTERVALS * interval_s, SILENT_AFTER_FLOOR_S)
        self._selection = ClockSelection(
            [str(server) for server in servers], int(silent_after_s * NS)
        )
        self._lock = threading.Lock()
        """Guards the selection and the epoch. Ticks take it only after a suspend."""
        self._epoch = 0
        self._selected: SelectedTime | None = None
        self._applied: SelectedTime | None = None
        self._clock: DisciplinedClock | None = None
        self._slept_ns = read_slept() or 0
        self._is_stopping = False
        self._wake_ups = [threading.Event() for _ in servers]
        self._reported = ""

    def start(self) -> None:
        for server, wake_up in zip(self._servers, self._wake_ups, strict=True):
            threading.Thread(
                target=self._poll, args=(server, wake_up), name=f"ntp {server}", daemon=True
            ).start()

    def stop(self) -> None:
        self._is_stopping = True
        self._wake_pollers()

    def tick(self) -> Tick:
        realtime_ns, monotonic_ns, _ = read_clock_pair()
        self._handle_suspend()
        selected = self._selected
        if selected is not None and selected is not self._applied:
            self._apply(selected, realtime_ns, monotonic_ns)
        if self._clock is None:
            return Tick(realtime_ns / NS, monotonic_ns, 0.0, 0.0, math.inf, False)
        time_ns = self._clock.advance(monotonic_ns)
        bound_ns = self._clock.find_bound(monotonic_ns)
        applied = self._applied
        last_sync_s, is_synchronized = 0.0, False
        if applied is not None:
            last_sync_s = (applied.synced_at_ns + applied.estimate.base_ns) / NS
            is_synchronized = monotonic_ns - applied.synced_at_ns <= self._hold_ns
        return Tick(
            time_ns / NS,
            monotonic_ns,
            last_sync_s,
            (time_ns - realtime_ns) / NS,
            math.inf if bound_ns is None else bound_ns / NS,
            is_synchronized,
        )

    def _apply(self, selected: SelectedTime, realtime_ns: int, monotonic_ns: int) -> None:
        if self._clock is None:
            self._clock = DisciplinedClock(realtime_ns - monotonic_ns)
        was_base_ns = self._clock.base_ns
        if self._clock.steer(selected.estimate, monotonic_ns):
            by_s = (self._clock.base_ns - was_base_ns) / NS
            logger.warning("the time was stepped by %+.6f s", by_s)
        self._applied = selected

    def _handle_suspend(self) -> None:
        slept_ns = self._read_slept()
        if slept_ns is None or slept_ns - self._slept_ns < SLEEP_NOTICED_NS:
            return
        by_ns = slept_ns - self._slept_ns
        self._slept_ns = slept_ns
        logger.warning(
            "the machine was suspended for %.1f s: querying the servers again", by_ns / NS
        )
        with self._lock:
            self._epoch += 1
            self._selection.reset()
            self._selected = self._applied = None
        if self._clock is not None:
            self._clock.shift(by_ns)
        self._wake_pollers()

    def _wake_pollers(self) -> None:
        for wake_up in self._wake_ups:
            wake_up.set()

    def _poll(self, server: ServerAddress, wake_up: threading.Event) -> None:
        interval_s = self._interval_s
        answers = failures = 0
        while not self._is_stopping:
            epoch = self._epoch
            try:
                sample = query_server(server)
            except TimeServerRefusedError as exc:
                logger.warning("%s", exc)
                self._record(None, server, epoch)
                if exc.code in {"DENY", "RSTR"}:
                    return
                interval_s = max(interval_s, min(interval_s * 2, MAX_INTERVAL_S))
                delay_s = interval_s
            except TimeServerError as exc:
                failures += 1
                log = logger.warning if failures == 1 else logger.debug
                log("%s", exc)
                self._record(None, server, epoch)
                delay_s = min(interval_s, BURST_INTERVAL_S * 2 ** min(failures, 10))
            else:
                answers, failures = answers + 1, 0
                logger.debug("time server %s: %s", server, sample)
                self._record(sample, server, epoch)
                in_burst = answers < BURST_ANSWERS
                delay_s = min(interval_s, BURST_INTERVAL_S) if in_burst else interval_s
            wake_up.wait(delay_s * random.uniform(0.95, 1.05))  # noqa: S311 - so that servers are not queried all at once
            wake_up.clear()

    def _record(self, sample: Sample | None, server: ServerAddress, epoch: int) -> None:
        """Add an answer or a failure, and select the time anew."""
        with self._lock:
            if epoch != self._epoch:
                return
            if sample is None:
                self._selection.add_failure(str(server))
            else:
                self._selection.add_answer(sample)
            selected = self._selection.select(time.monotonic_ns())
            if selected is not None:
                self._selected = selected
            self._report(selected)

    def _report(self, selected: SelectedTime | None) -> None:
        """Log which server is followed, when that changes."""
        if selected is None:
            if not self._selection.is_every_server_tried:
                return
            text = "no majority of the time servers agrees: the time is not corrected"
        else:
            outvoted = ", ".join(sample.server for sample in selected.agreement.outvoted)
            text = f"following {selected.agreement.best.server}"
            text += f"; outvoted: {outvoted}" if outvoted else ""
        if text != self._reported:
            self._reported = text
            logger.info("%s", text)
