"""Creates the sensor source that a --source option names.

A source's module is imported when a daemon uses it: some take megabytes.
"""

from __future__ import annotations

from shared_context_server.clock.errors import OptionError
from shared_context_server.clock.sources.channels import Source

DEFAULT_SOURCES = ("hwmon", "iio", "psutil")


def open_source(text: str) -> Source:
    """The source that `text` names. Raises OptionError if there is no such kind."""
    kind, colon, argument = text.partition(":")
    found: Source | None = None
    if not colon:
        found = _open_without_argument(kind)
    if found is None and (argument or not colon):
        found = _open_with_optional_argument(kind, argument)
    if found is None and argument:
        found = _open_with_argument(kind, argument)
    if found is None:
        raise OptionError(
            "--source",
            f"{text!r} is not a source; use hwmon, hwmon:CHIP, iio, iio:DEVICE, psutil, simulated, "
            f"python:package.module:function or exec:COMMAND",
        )
    return found


def _open_without_argument(kind: str) -> Source | None:
    if kind == "psutil":
        from shared_context_server.clock.sources.host import HostSource  # noqa: PLC0415

        return HostSource()
    if kind == "simulated":
        from shared_context_server.clock.sources.simulated import SimulatedSource  # noqa: PLC0415

        return SimulatedSource()
    return None


def _open_with_optional_argument(kind: str, argument: str) -> Source | None:
    if kind == "hwmon":
        from shared_context_server.clock.sources.hwmon import HwmonSource  # noqa: PLC0415

        return HwmonSource(argument)
    if kind == "iio":
        from shared_context_server.clock.sources.iio import IioSource  # noqa: PLC0415

        return IioSource(argument)
    return None


def _open_with_argument(kind: str, argument: str) -> Source | None:
    if kind == "python":
        from shared_context_server.clock.sources.function import FunctionSource  # noqa: PLC0415

        return FunctionSource(argument)
    if kind == "exec":
        from shared_context_server.clock.sources.command import CommandSource  # noqa: PLC0415

        return CommandSource(argument)
    return None
