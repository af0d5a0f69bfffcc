"""Calls a function at a steady rate, without drift and without busy waiting."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress

NS = 1_000_000_000
LONGEST_SLEEP_NS = NS // 10
"""A signal only sets a flag. At slow rates the flag would otherwise wait for the next tick."""


def run_ticks(period_ns: int, tick: Callable[[], None], is_stopping: Callable[[], bool]) -> None:
    """Call `tick` now and then once every `period_ns`, until `is_stopping()`.

    Deadlines are absolute: a late tick does not delay later ones. Missed ticks are skipped.
    """
    deadline_ns = time.monotonic_ns()
    while not is_stopping():
        tick()
        deadline_ns = find_next_deadline(deadline_ns, period_ns, time.monotonic_ns())
        _sleep_until(deadline_ns, is_stopping)


def find_next_deadline(deadline_ns: int, period_ns: int, now_ns: int) -> int:
    """The first deadline after `now_ns`, a whole number of periods after `deadline_ns`."""
    return deadline_ns + max(1, (now_ns - deadline_ns) // period_ns + 1) * period_ns


def reduce_timer_slack() -> None:
    """Tell Linux not to delay the main thread's wake-ups by the default timer slack of 50 µs.

    Best effort: where /proc is not mounted, ticks come somewhat later.
    """
    if sys.platform == "linux":
        with suppress(OSError), open("/proc/self/timerslack_ns", "w", encoding="ascii") as file:
            file.write("1")


def _sleep_until(deadline_ns: int, is_stopping: Callable[[], bool]) -> None:
    while not is_stopping():
        left_ns = deadline_ns - time.monotonic_ns()
        if left_ns <= LONGEST_SLEEP_NS:
            if left_ns > 0:
                time.sleep(left_ns / NS)
            return
        time.sleep(LONGEST_SLEEP_NS / NS)
