"""What a source gives: some of the sensor channels, each a finite number or absent."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from shared_context_server.clock.errors import SourceError

ABSOLUTE_ZERO_C = -273.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """Values of one reading; None is "no such sensor here". Units: °C, %, %, %, processes."""

    temperature: float | None = None
    humidity: float | None = None
    cpu: float | None = None
    memory: float | None = None
    load1: float | None = None
    is_simulated: bool = False


class Source(Protocol):
    """One place to read sensors from.

    `read` is called from one thread, again and again, and may block. It raises SourceError, or
    anything else, when it cannot give a reading now; it is then called again later. `close` is
    called from another thread, once, and may come in the middle of a `read`.
    """

    name: str

    def read(self) -> Channels: ...

    def close(self) -> None: ...


def take_channels(given: object, source: str) -> Channels:
    """The temperature and humidity of a mapping, or of an object that has them as attributes.

    What is missing, None or NaN is absent. Raises SourceError for anything else that is not a
    number, or is one that no thermometer or hygrometer shows.
    """
    if isinstance(given, Mapping):
        temperature, humidity = given.get("temperature"), given.get("humidity")
    elif given is None or isinstance(given, str | bytes | int | float | list | tuple):
        raise SourceError(source, f"gave {type(given).__name__}, not an object with temperature")
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
        raise SourceError(source, f"{name} is {number}, which cannot be")
    return number
