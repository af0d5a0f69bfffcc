"""Sensor source `iio`: Linux industrial I/O.

Files: /sys/bus/iio/devices/iio:deviceN/in_temp_* and in_humidityrelative_*. Format:
Documentation/ABI/testing/sysfs-bus-iio of the kernel. A channel has a processed value (`_input`) or
a raw one; (raw + offset) * scale is the value. Both are in millidegrees and millipercent.
"""

from collections.abc import Iterator
from os import PathLike, fspath

from shared_context_server.clock.errors import SourceError
from shared_context_server.clock.sources.channels import Channels
from shared_context_server.clock.sources.sysfs import (
    find_number,
    list_files,
    read_number,
    read_word,
)

IIO_ROOT = "/sys/bus/iio/devices"


class IioSource:
    """The first working temperature and humidity sensors, of all devices or of `device`.

    Devices with a humidity sensor come first: they measure the air.
    """

    def __init__(self, device: str = "", root: str | PathLike[str] = IIO_ROOT) -> None:
        self.name = f"iio:{device}" if device else "iio"
        self._device = device
        self._root = fspath(root)

    def read(self) -> Channels:
        """Raises SourceError if the device does not exist, or if no channel can be read."""
        failures: list[OSError] = []
        devices = sorted(self._list_devices(), key=_prefer_air)
        if self._device and not devices:
            raise SourceError(self.name, f"no such device under {self._root}")
        temperature = _read_first(devices, "in_temp", failures)
        humidity = _read_first(devices, "in_humidityrelative", failures)
        if failures and temperature is None and humidity is None:
            raise SourceError(self.name, str(failures[0])) from failures[0]
        return Channels(temperature=temperature, humidity=humidity)

    def close(self) -> None:
        return None

    def _list_devices(self) -> Iterator[str]:
        for path in list_files(self._root, "iio:device"):
            if not self._device or read_word(f"{path}/name") == self._device:
                yield path


def _read_first(devices: list[str], channel: str, failures: list[OSError]) -> float | None:
    for device in devices:
        try:
            value = _read_channel(device, channel)
        except OSError as exc:
            failures.append(exc)
        else:
            if value is not None:
                return value
    return None


def _read_channel(device: str, channel: str) -> float | None:
    processed = read_number(f"{device}/{channel}_input")
    if processed is not None:
        return processed / 1000
    raw = read_number(f"{device}/{channel}_raw")
    if raw is None:
        return None
    offset = read_number(f"{device}/{channel}_offset") or 0.0
    scale = read_number(f"{device}/{channel}_scale")
    return (raw + offset) * (1.0 if scale is None else scale) / 1000


def _prefer_air(device: str) -> tuple[bool, int]:
    return not list_files(device, "in_humidityrelative_"), find_number(device)
