"""A clock for stored times: it follows the system clock, but never goes back.

Leases, entries and tokens expire by stored times. If someone sets the system clock back by an hour,
they would live an hour longer. So the time is the time since boot (which also counts while the
machine is suspended) plus the largest difference to the system clock that was ever seen. If the
system clock is set forward, this clock follows at once. If it is set back, this clock goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


class SteadyClock:
    """A clock that never goes back. Thread-safe.

    `boot_id` identifies the boot from which `read_elapsed_ns` counts; None if it is unknown.
    """

    def __init__(
        self,
        read_system_ns: Callable[[], int] = time.time_ns,
        read_elapsed_ns: Callable[[], int] | None = None,
        boot_id: str | None = None,
    ) -> None:
        self._read_system_ns = read_system_ns
        self._read_elapsed_ns = read_elapsed_ns or _find_elapsed_clock()
        self.boot_id = boot_id
        # The largest difference between the system clock and the elapsed time.
        self._offset_ns = read_system_ns() - self._read_elapsed_ns()

    @property
    def offset_us(self) -> int:
        """The difference between this clock and the time since boot, in microseconds."""
        self._update_offset()
        return self._offset_ns // 1000

    def now(self) -> datetime:
        return to_datetime(self.now_us())

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        return (self._update_offset() + self._offset_ns) // 1000

    def keep_up_with(self, offset_us: int) -> None:
        """Use at least this offset, which another process of the same boot has used."""
        self._offset_ns = max(self._offset_ns, offset_us * 1000)

    @property
    def lead_s(self) -> float:
        """How far this clock is ahead of the system clock: by how much that was set back."""
        system_ns = self._read_system_ns()
        return max(0.0, (self._update_offset() + self._offset_ns - system_ns) / 1e9)

    def _update_offset(self) -> int:
        """Return the time since boot, in ns."""
        # The system clock is read first. If the thread is paused between both readings, the
        # difference is too small, which does no harm. A difference that is too large would stay.
        system_ns = self._read_system_ns()
        elapsed_ns = self._read_elapsed_ns()
        self._offset_ns = max(self._offset_ns, system_ns - elapsed_ns)
        return elapsed_ns


def _find_elapsed_clock() -> Callable[[], int]:
    """A clock that nobody sets, in ns; if there is one, it runs on while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
    return time.monotonic_ns


def to_datetime(microseconds: int) -> datetime:
    """The UTC time of this number of microseconds since the epoch."""
    return _EPOCH + timedelta(microseconds=microseconds)


def _read_boot_id() -> str | None:
    try:
        return _BOOT_ID_FILE.read_text().strip() or None
    except OSError:
        return None


MACHINE_CLOCK = SteadyClock(boot_id=_read_boot_id())
"""The clock of this process, shared by all its servers."""


utc_now = MACHINE_CLOCK.now
"""The current time, to store it or to compare it with stored times."""
