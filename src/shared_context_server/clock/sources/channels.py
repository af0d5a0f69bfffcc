"""The interface of sensor sources and the values they return."""

import math
from collections import namedtuple
from collections.abc import Mapping

from shared_context_server.clock.errors import SourceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple, Protocol
else:  # `typing` takes almost a megabyte
    Protocol = object

ABSOLUTE_ZERO_C = -273.15
PAIR = ("temperature", "humidity")


if TYPE_CHECKING:

    class Channels(NamedTuple):
        """Values of one reading; None if there is no such sensor. Units: °C, %, %, %, processes."""

        temperature: float | None = None
        humidity: float | None = None
        cpu: float | None = None
        memory: float | None = None
        load1: float | None = None
        is_simulated: bool = False

else:
    Channels = namedtuple(
        "Channels",
        ["temperature", "humidity", "cpu", "memory", "load1", "is_simulated"],
        defaults=[None, None, None, None, None, False],
    )


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
    """The temperature and humidity of a mapping, of an object with these attributes, or of a tuple
    (temperature, humidity).

    A value that is missing, None or NaN is absent. Raises SourceError for anything else, and for a
    value that is not a number or is physically impossible.
    """
    if isinstance(given, Mapping):
        temperature, humidity = given.get("temperature"), given.get("humidity")
    elif hasattr(given, "temperature") or hasattr(given, "humidity"):
        temperature = getattr(given, "temperature", None)
        humidity = getattr(given, "humidity", None)
    elif isinstance(given, tuple) and len(given) == len(PAIR):
        temperature, humidity = given
    else:
        kind = f"{len(given)} values" if isinstance(given, tuple) else type(given).__name__
        raise SourceError(
            source,
            f"returned {kind}; it must be an object or a mapping with temperature or humidity, or "
            "a tuple (temperature, humidity)",
        )
    return Channels(
        temperature=_check_number(temperature, "temperature", ABSOLUTE_ZERO_C, math.inf, source),
        humidity=_check_number(humidity, "humidity", 0.0, 100.0, source),
    )


def _check_number(value: object, name: str, low: float, high: float, source: str) -> float | None:
    if value is None:
        return None
    # Numbers of other kinds too, such as Decimal and NumPy's. A string has no __float__.
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise SourceError(source, f"{name} is {value!r:.80}, not a number")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise SourceError(source, f"{name} is {value!r:.80}, not a number") from exc
    if math.isnan(number):
        return None
    if not low <= number <= high or math.isinf(number):
        raise SourceError(source, f"{name} is {number}, which is impossible")
    return number
