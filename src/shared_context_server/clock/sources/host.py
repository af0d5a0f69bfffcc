"""Sensor source `psutil`: processor, memory and load of the machine, and its temperature.

On Linux the values are read from /proc as psutil does it: psutil takes 7 MB, and the whole daemon
otherwise less than 12. Elsewhere psutil reads them.
"""

import os
import sys
import time

from shared_context_server.clock.errors import SourceError
from shared_context_server.clock.sources.channels import Channels
from shared_context_server.clock.sources.hwmon import HwmonSource
from shared_context_server.clock.sources.sysfs import list_files, read_number

CPU_WINDOW_S = 0.1
"""Processor time is measured between two readings. In a shorter time rounding errors dominate."""
THERMAL_ROOT = "/sys/class/thermal"
IDLE, IOWAIT, LAST = 3, 4, 8
"""Positions in the first line of /proc/stat (proc_stat(5)); guest times after `LAST` are part of user."""


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object


class _Machine(Protocol):
    def measure_cpu_percent(self) -> float | None:
        """Since the last call; None at the first one."""

    def measure_memory_percent(self) -> float: ...

    def find_temperature(self) -> float | None: ...


class HostSource:
    name = "psutil"

    def __init__(self) -> None:
        self._machine: _Machine = _Proc() if sys.platform == "linux" else _open_psutil()
        self._machine.measure_cpu_percent()
        self._asked_at_s = time.monotonic()
        self._cpu: float | None = None

    def read(self) -> Channels:
        """Reads that follow each other faster than the window repeat its last processor time."""
        now_s = time.monotonic()
        if now_s - self._asked_at_s >= CPU_WINDOW_S:
            self._cpu, self._asked_at_s = self._machine.measure_cpu_percent(), now_s
        return Channels(
            temperature=self._machine.find_temperature(),
            cpu=self._cpu,
            memory=self._machine.measure_memory_percent(),
            load1=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        )

    def close(self) -> None:
        return None


class _Proc:
    """Reads /proc and /sys of Linux."""

    def __init__(self) -> None:
        self._hwmon = HwmonSource()
        self._total = self._idle = 0

    def measure_cpu_percent(self) -> float | None:
        with open("/proc/stat", encoding="ascii") as file:
            times = [int(word) for word in file.readline().split()[1:]]
        total, idle = sum(times[:LAST]), times[IDLE] + times[IOWAIT]
        total_since, idle_since = total - self._total, idle - self._idle
        is_first, self._total, self._idle = not self._total, total, idle
        if is_first or total_since <= 0:
            return None
        return min(100.0, max(0.0, round(100 * (total_since - idle_since) / total_since, 1)))

    def measure_memory_percent(self) -> float:
        found = {}
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in ("MemTotal", "MemAvailable"):
                    found[name] = int(value.split()[0])
                    if len(found) == 2:
                        break
        if len(found) < 2:
            raise SourceError("psutil", "/proc/meminfo has no MemTotal and MemAvailable")
        return round(100 * (1 - found["MemAvailable"] / found["MemTotal"]), 1)

    def find_temperature(self) -> float | None:
        try:
            temperature = self._hwmon.read().temperature
        except SourceError:
            temperature = None
        for zone in sorted(list_files(THERMAL_ROOT, "thermal_zone")):
            if temperature is not None:
                break
            try:
                value = read_number(f"{zone}/temp")
            except OSError:
                continue
            temperature = None if value is None else value / 1000
        return temperature


def _open_psutil() -> _Machine:
    from shared_context_server.clock.sources.host_psutil import PsutilMachine  # noqa: PLC0415

    return PsutilMachine()
