"""Sensor source `hwmon`: /sys/class/hwmon/hwmonN/temp*_input and humidity*_input of Linux.

Format: Documentation/hwmon/sysfs-interface.rst of the kernel; millidegrees and millipercent.
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

HWMON_ROOT = "/sys/class/hwmon"


class HwmonSource:
    """The first working temperature and humidity sensors, of all chips or of the chip `chip`.

    Chips with a humidity sensor come first: they measure the air, others measure a component.
    """

    def __init__(self, chip: str = "", root: str | PathLike[str] = HWMON_ROOT) -> None:
        self.name = f"hwmon:{chip}" if chip else "hwmon"
        self._chip = chip
        self._root = fspath(root)

    def read(self) -> Channels:
        """Raises SourceError if the chip does not exist, or if no sensor can be read."""
        failures: list[OSError] = []
        chips = sorted(self._list_chips(), key=_prefer_air)
        if self._chip and not chips:
            raise SourceError(self.name, f"no such chip under {self._root}")
        temperature = self._read_first(chips, "temp", failures)
        humidity = self._read_first(chips, "humidity", failures)
        if failures and temperature is None and humidity is None:
            raise SourceError(self.name, str(failures[0])) from failures[0]
        return Channels(temperature=temperature, humidity=humidity)

    def close(self) -> None:
        return None

    def _list_chips(self) -> Iterator[str]:
        for path in list_files(self._root, "hwmon"):
            if not self._chip or read_word(f"{path}/name") == self._chip:
                yield path

    def _read_first(self, chips: list[str], kind: str, failures: list[OSError]) -> float | None:
        for chip in chips:
            for path in sorted(list_files(chip, kind, "_input"), key=find_number):
                try:
                    if read_number(path.removesuffix("_input") + "_fault"):
                        continue
                    value = read_number(path)
                except OSError as exc:
                    failures.append(exc)
                else:
                    if value is not None:
                        return value / 1000
        return None


def _prefer_air(chip: str) -> tuple[bool, int]:
    return not list_files(chip, "humidity", "_input"), find_number(chip)
