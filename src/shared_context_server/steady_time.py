"""The time that is stored: of the system clock, but it never goes back, whoever sets that clock back.

Leases, entries and tokens expire by times that were stored earlier. If the system clock is set back
by an hour, they would live an hour longer. So the time is that of a clock that nobody sets (it runs
on while the machine sleeps), plus the largest difference to the system clock that was ever seen. A
clock that is set forward is followed at once; one that is set back is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


def _read_elapsed_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class SteadyClock:
    """Gives times of which none is earlier than the one before it. Safe for any number of threads.

    `boot_id` names the run of this machine that `read_elapsed_ns` counts from; None if the system
    does not tell.
    """

    def __init__(
        self,
        read_system_ns: Callable[[], int] = time.time_ns,
        read_elapsed_ns: Callable[[], int] | None = None,
        boot_id: str | None = None,
    ) -> None:
        self._read_system_ns = read_system_ns
        self._read_elapsed_ns = read_elapsed_ns or (
            _read_elapsed_ns if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic_ns
        )
        self.boot_id = boot_id
        # What the elapsed time lacks to the time of day.
        self._offset_ns = read_system_ns() - self._read_elapsed_ns()

    @property
    def offset_us(self) -> int:
        """What the elapsed time of this boot lacks to the time that is given, microseconds."""
        self._look()
        return self._offset_ns // 1000

    def now(self) -> datetime:
        return to_datetime(self.now_us())

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        return (self._look() + self._offset_ns) // 1000

    def keep_up_with(self, offset_us: int) -> None:
        """Give no earlier times than another process with this offset, in the same boot."""
        self._offset_ns = max(self._offset_ns, offset_us * 1000)

    @property
    def lead_s(self) -> float:
        """How far it is ahead of the system clock, which has been set back by so much."""
        system_ns = self._read_system_ns()
        return max(0.0, (self._look() + self._offset_ns - system_ns) / 1e9)

    def _look(self) -> int:
        # The system clock first: whoever is held up in between sees too small a difference, which
        # does no harm, and never too large a one, which would stay.
        system_ns = self._read_system_ns()
        elapsed_ns = self._read_elapsed_ns()
        self._offset_ns = max(self._offset_ns, system_ns - elapsed_ns)
        return elapsed_ns


def to_datetime(microseconds: int) -> datetime:
    """The time so long after the epoch, in UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


def _read_boot_id() -> str | None:
    try:
        return _BOOT_ID_FILE.read_text().strip() or None
    except OSError:
        return None


MACHINE_CLOCK = SteadyClock(boot_id=_read_boot_id())
"""Of this process; there is one machine, however many servers are in it."""


def utc_now() -> datetime:
    """The time to store, and to compare with what was stored."""
    return MACHINE_CLOCK.now()
