"""Checks of the time: the system clock, and the clock daemon."""

from __future__ import annotations

import time

from shared_context_server.cli.checks.findings import Findings, fail, ok, warn
from shared_context_server.clock import ClockError, ClockNotRunningError, ClockReader
from shared_context_server.clock.errors import OptionError, start_command
from shared_context_server.clock.timesync.kernel import open_kernel_clock
from shared_context_server.settings import Settings

SYSTEM, DAEMON = "system time", "clock"

_TOLERANCE_S = 1.0  # between the daemon and the system clock


def check_system_time() -> Findings:
    """Whether the kernel says that the system clock is synchronized."""
    try:
        state = open_kernel_clock()()
    except (OptionError, OSError, AttributeError) as exc:
        yield ok(SYSTEM, f"Whether it is synchronized is not known ({exc}).")
        return
    if state.is_synchronized:
        yield ok(SYSTEM, f"Synchronized, within {state.max_error_s * 1000:.0f} ms.")
    else:
        yield warn(
            SYSTEM,
            "Nothing synchronizes it, or nothing tells the kernel.",
            "Run chronyd, systemd-timesyncd or ntpd on this machine.",
        )


def check_clock(settings: Settings) -> Findings:
    """Whether the clock daemon of the settings runs, and what it knows."""
    with ClockReader(settings.clock_prefix, owner=settings.clock_owner) as reader:
        try:
            now = reader.now()
        except ClockNotRunningError:
            yield ok(DAEMON, "No clock daemon runs: get_time answers with the system clock.")
            return
        except ClockError as exc:
            yield fail(DAEMON, str(exc), f"Start it again: {start_command(settings.clock_prefix)}")
            return
    if now.stale:
        hint = f"Start it again: {start_command(settings.clock_prefix)}"
        yield warn(DAEMON, f"The daemon wrote the time {now.age_s:.0f} s ago and has ended.", hint)
        return
    difference = now.time - time.time()
    if abs(difference) > _TOLERANCE_S:
        text = f"The daemon's time and the system clock differ by {difference:+.1f} s."
        yield warn(DAEMON, text, "One of them is wrong: see the line on the system time.")
    elif now.synchronized and now.earliest is not None and now.latest is not None:
        bound_ms = (now.latest - now.earliest) / 2 * 1000
        yield ok(DAEMON, f"The daemon runs, synchronized within {bound_ms:.1f} ms.")
    elif settings.clock_ntp and settings.clock_ntp[0] != "none":
        hint = "See its log; the time servers may not be reachable."
        yield warn(DAEMON, "The daemon runs, but is not synchronized.", hint)
    else:
        yield ok(DAEMON, "The daemon runs, without a time server (--ntp).")
