"""Tools for the time and the machine's sensors."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel

from shared_context_server.clock import SensorReading
from shared_context_server.models import Permission
from shared_context_server.services import clock
from shared_context_server.services.clock import TimeNow
from shared_context_server.services.context import Services
from shared_context_server.tools.arguments import Arguments, Result, Time
from shared_context_server.tools.registry import READS, Call, Tool


class NoArguments(Arguments):
    pass


class TimeResult(Result):
    time: Time
    epoch_s: float
    earliest: Time | None
    latest: Time | None
    source: Literal["shared_memory", "system"]
    synchronized: bool
    age_ms: float | None
    stale: bool
    sequence: int | None
    hint: str | None


class SensorItem(BaseModel):
    value: float | None
    unit: str
    valid: bool
    age_ms: float
    stale: bool
    sequence: int
    simulated: bool


class SensorResult(SensorItem, Result):
    pass


class SensorsResult(Result):
    sensors: dict[str, SensorItem]


def time_result(now: TimeNow) -> TimeResult:
    return TimeResult(
        time=_moment(now.time_s),
        epoch_s=now.time_s,
        earliest=None if now.earliest_s is None else _moment(now.earliest_s),
        latest=None if now.latest_s is None else _moment(now.latest_s),
        source="shared_memory" if now.is_shared else "system",
        synchronized=now.is_synchronized,
        age_ms=None if now.age_s is None else _milliseconds(now.age_s),
        stale=not now.is_shared,
        sequence=now.sequence,
        hint=now.hint,
    )


def sensors_result(reading: SensorReading) -> SensorsResult:
    """Return all channels by name, also those that this machine does not have."""
    return SensorsResult(
        sensors={
            "temperature": _item(reading, reading.temperature, "°C"),
            "humidity": _item(reading, reading.humidity, "%"),
            "cpu": _item(reading, reading.cpu, "%"),
            "memory": _item(reading, reading.memory, "%"),
            "load1": _item(reading, reading.load1, "processes"),
        }
    )


def _moment(epoch_s: float) -> datetime:
    return datetime.fromtimestamp(epoch_s, UTC)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _item(reading: SensorReading, value: float | None, unit: str) -> SensorItem:
    return SensorItem(
        value=value,
        unit=unit,
        valid=value is not None,
        age_ms=_milliseconds(reading.age_s),
        stale=reading.stale,
        sequence=reading.sequence,
        simulated=reading.simulated,
    )


def _single(sensor: str, services: Services, call: Call) -> SensorResult:
    found = sensors_result(clock.get_sensors(services, call.caller)).sensors[sensor]
    return SensorResult(**found.model_dump())


async def get_time(services: Services, call: Call, arguments: NoArguments) -> TimeResult:
    """Get the time, and its bounds earliest and latest where they are known. All agents on this
    machine read the same clock."""
    return time_result(clock.get_time(services, call.caller))


async def get_temperature(services: Services, call: Call, arguments: NoArguments) -> SensorResult:
    """Get the machine's temperature in °C; value is null without a thermometer."""
    return _single("temperature", services, call)


async def get_humidity(services: Services, call: Call, arguments: NoArguments) -> SensorResult:
    """Get the relative humidity in %; value is null without a hygrometer."""
    return _single("humidity", services, call)


async def get_all_sensors(services: Services, call: Call, arguments: NoArguments) -> SensorsResult:
    """Get the machine's temperature, humidity, cpu, memory and load, by name."""
    return sensors_result(clock.get_sensors(services, call.caller))


TOOLS = (
    Tool("get_time", NoArguments, TimeResult, get_time, Permission.READ, READS, False),
    Tool(
        "get_temperature", NoArguments, SensorResult, get_temperature, Permission.READ, READS, False
    ),
    Tool("get_humidity", NoArguments, SensorResult, get_humidity, Permission.READ, READS, False),
    Tool(
        "get_all_sensors",
        NoArguments,
        SensorsResult,
        get_all_sensors,
        Permission.READ,
        READS,
        False,
    ),
)
