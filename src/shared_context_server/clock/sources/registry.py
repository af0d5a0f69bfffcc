"""Creates the sensor source that a --source option names."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from shared_context_server.clock.errors import OptionError
from shared_context_server.clock.sources.channels import Source

DEFAULT_SOURCES = ("hwmon", "iio", "psutil")

# Module and class: the modules that a daemon does not use, and theirs, take megabytes.
_WITHOUT_ARGUMENT = {
    "psutil": ("host", "HostSource"),
    "simulated": ("simulated", "SimulatedSource"),
}
_WITH_OPTIONAL_ARGUMENT = {
    "hwmon": ("hwmon", "HwmonSource"),
    "iio": ("iio", "IioSource"),
}
_WITH_ARGUMENT = {
    "python": ("function", "FunctionSource"),
    "exec": ("command", "CommandSource"),
}


def open_source(text: str) -> Source:
    """The source that `text` names. Raises OptionError if there is no such kind."""
    kind, colon, argument = text.partition(":")
    if kind in _WITHOUT_ARGUMENT and not colon:
        return _load(*_WITHOUT_ARGUMENT[kind])()
    if kind in _WITH_OPTIONAL_ARGUMENT and (argument or not colon):
        return _load(*_WITH_OPTIONAL_ARGUMENT[kind])(argument)
    if kind in _WITH_ARGUMENT and argument:
        return _load(*_WITH_ARGUMENT[kind])(argument)
    raise OptionError(
        "--source",
        f"{text!r} is not a source; use hwmon, hwmon:CHIP, iio, iio:DEVICE, psutil, simulated, "
        f"python:package.module:function or exec:COMMAND",
    )


def _load(module: str, name: str) -> Callable[..., Source]:
    found: type[Source] = getattr(
        import_module(f"shared_context_server.clock.sources.{module}"), name
    )
    return found
