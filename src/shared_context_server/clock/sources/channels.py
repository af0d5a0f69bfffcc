"""The interface of sensor sources and the values they return."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from shared_context_server.clock.errors import SourceError

ABSOLUTE_ZERO_C = -273.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """Values of one reading; None if there is no such sensor. Units: °C, %, %, %, processes."""

    temperature: float | None = None
    humidity: float | None = None
    cpu: float | None = None
    memory: float | None = None
    load1: float | None = None
    is_simulated: bool = False


class Source(Protocol):
    """One source of sensor values.

    `read` is called repeatedly from one thread and may block. If it raises, SourceError or any
    other error, it is called again later. `close` is called once from another thread, possibly
    during a `read`.
    """

    name: str

    def read(self) -> Channels: ...

    def close(self) -> None: ...


def take_channels(given: object, source: str) -> Channels:
    """The temperature and humidity of a mapping, or of an object with these attributes.

    A value that is missing, None or NaN is absent. Raises SourceError for a value that is not a
    number or is physically impossible.
    """
    if isinstance(given, Mapping):
        temperature, humidity = given.get("temperature"), given.get("humidity")
    elif given is None or isinstance(given, str | bytes | int | float | list | tuple):
        raise SourceError(
            source, f"returned {type(given).__name__}, not an object with temperature or humidity"
        )
    else:
        temperature = getattr(given, "temperature", None)
        humidity = getattr(given, "humidity", None)
    return Channels(
        temperature=_check_number(temperature, "temperature", ABSOLUTE_ZERO_C, math.inf, source),
        humidity=_check_number(humidity, "humidity", 0.0, 100.0, source),
    )


def _check_number(value: object, name: str, low: float, high: float, source: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SourceError(source, f"{name} is {value!r}, not a number")
    number = float(value)
    if math.isnan(number):
        return None
    if not low <= number <= high or math.isinf(number):
        raise SourceError(source, f"{name} is {number}, which is impossible")
    return number
