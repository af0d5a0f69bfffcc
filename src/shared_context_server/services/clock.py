"""Read the time and the machine's sensors from the clock daemon."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from shared_context_server import policy
from shared_context_server.clock import ClockError, ClockReader, SensorReading
from shared_context_server.clock.errors import start_command
from shared_context_server.errors import ClockNotRunning
from shared_context_server.models import Caller, Permission
from shared_context_server.services.context import Services


@dataclass(frozen=True, slots=True)
class TimeNow:
    """The time in seconds since 1970 UTC. `earliest` and `latest` are None while the error is
    unknown.

    `is_shared`: the time is from the daemon; otherwise it is the system clock's, and `hint` says
    why. `age_s` and `sequence` belong to the daemon's record; None if there is none.
    """

    time_s: float
    earliest_s: float | None
    latest_s: float | None
    is_shared: bool
    is_synchronized: bool
    age_s: float | None
    sequence: int | None
    hint: str | None


def get_time(services: Services, caller: Caller) -> TimeNow:
    """Return the daemon's time, or the system clock's if no daemon runs."""
    policy.require_permission(caller, Permission.READ)
    clock = services.clock
    try:
        now = clock.now()
    except ClockError as exc:
        return _system_time(None, None, f"This is the system clock: {exc}")
    if now.stale:
        command = start_command(clock.prefix)
        hint = f"This is the system clock: the clock daemon has stopped. Start it with: {command}"
        return _system_time(now.age_s, now.sequence, hint)
    return TimeNow(
        now.time, now.earliest, now.latest, True, now.synchronized, now.age_s, now.sequence, None
    )


def get_sensors(services: Services, caller: Caller) -> SensorReading:
    """Return the latest values of all sensors. Raises ClockNotRunning if no daemon has written any."""
    policy.require_permission(caller, Permission.READ)
    sensors = services.sensors
    try:
        return sensors.now()
    except ClockError as exc:
        raise ClockNotRunning(str(exc), command=start_command(sensors.prefix)) from exc


def measure_clock_age_s(clock: ClockReader) -> float:
    """Return how long ago the daemon wrote the time; NaN if it never did."""
    try:
        return clock.now().age_s
    except ClockError:
        return math.nan


def _system_time(age_s: float | None, sequence: int | None, hint: str) -> TimeNow:
    return TimeNow(time.time(), None, None, False, False, age_s, sequence, hint)
