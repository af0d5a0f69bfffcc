"""The shared clock and the sensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.responses import Response

from shared_context_server.clock import SensorReading
from shared_context_server.clock.errors import start_command
from shared_context_server.errors import ClockNotRunning
from shared_context_server.services import clock
from shared_context_server.ui.live import LiveResponse, signal_changes
from shared_context_server.ui.page import Page, PageRequest

EVENTS_PATH = "/events/clock"
TICK_S = 2.0


@dataclass(frozen=True, slots=True)
class Sensor:
    """A value of a sensor; None if there is none."""

    name: str
    unit: str
    value: float | None


async def show_clock(page: PageRequest) -> Response:
    """The time as agents get it from get_time, with its error, and the sensors."""
    now = clock.get_time(page.services, page.caller)
    error_s = None
    if now.earliest_s is not None and now.latest_s is not None:
        error_s = (now.latest_s - now.earliest_s) / 2
    reading, missing = _read_sensors(page)
    return page.render(
        "clock.html",
        now=now,
        moment=datetime.fromtimestamp(now.time_s, UTC),
        error=None if error_s is None else _show_seconds(error_s),
        age=None if now.age_s is None else _show_seconds(now.age_s),
        command=start_command(page.services.clock.prefix),
        sensors=[] if reading is None else _list_sensors(reading),
        reading=reading,
        missing=missing,
        live=page.address(EVENTS_PATH),
    )


async def follow_clock(page: PageRequest) -> Response:
    """Tell the page to look again every TICK_S."""
    return LiveResponse(page, signal_changes(page.services, page.caller, (), tick_s=TICK_S))


def _read_sensors(page: PageRequest) -> tuple[SensorReading | None, ClockNotRunning | None]:
    try:
        return clock.get_sensors(page.services, page.caller), None
    except ClockNotRunning as exc:
        return None, exc


def _list_sensors(reading: SensorReading) -> list[Sensor]:
    return [
        Sensor("Temperature", "°C", reading.temperature),
        Sensor("Humidity", "%", reading.humidity),
        Sensor("Processor", "%", reading.cpu),
        Sensor("Memory", "%", reading.memory),
        Sensor("Load, 1 minute", "", reading.load1),
    ]


def _show_seconds(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "unknown"
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(seconds) >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


PAGES = (Page("/clock", show_clock), Page(EVENTS_PATH, follow_clock))
