"""Creates the sensor source that a --source option names."""

from collections.abc import Callable

from shared_context_server.clock.errors import OptionError
from shared_context_server.clock.sources.channels import Source
from shared_context_server.clock.sources.command import CommandSource
from shared_context_server.clock.sources.function import FunctionSource
from shared_context_server.clock.sources.host import HostSource
from shared_context_server.clock.sources.hwmon import HwmonSource
from shared_context_server.clock.sources.iio import IioSource
from shared_context_server.clock.sources.simulated import SimulatedSource

DEFAULT_SOURCES = ("hwmon", "iio", "psutil")

_WITHOUT_ARGUMENT: dict[str, Callable[[], Source]] = {
    "psutil": HostSource,
    "simulated": SimulatedSource,
}
_WITH_OPTIONAL_ARGUMENT: dict[str, Callable[[str], Source]] = {
    "hwmon": HwmonSource,
    "iio": IioSource,
}
_WITH_ARGUMENT: dict[str, Callable[[str], Source]] = {
    "python": FunctionSource,
    "exec": CommandSource,
}


def open_source(text: str) -> Source:
    """The source that `text` names. Raises OptionError if there is no such kind."""
    kind, colon, argument = text.partition(":")
    if kind in _WITHOUT_ARGUMENT and not colon:
        return _WITHOUT_ARGUMENT[kind]()
    if kind in _WITH_OPTIONAL_ARGUMENT and (argument or not colon):
        return _WITH_OPTIONAL_ARGUMENT[kind](argument)
    if kind in _WITH_ARGUMENT and argument:
        return _WITH_ARGUMENT[kind](argument)
    raise OptionError(
        "--source",
        f"{text!r} is not a source; use hwmon, hwmon:CHIP, iio, iio:DEVICE, psutil, simulated, "
        f"python:package.module:function or exec:COMMAND",
    )
