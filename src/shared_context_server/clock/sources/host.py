"""Sensor source `psutil`: processor, memory and load of the machine, and its temperature."""

import time

import psutil

from shared_context_server.clock.sources.channels import Channels

CPU_WINDOW_S = 0.1
"""psutil measures processor time between two calls. In a shorter time rounding errors dominate."""


class HostSource:
    name = "psutil"

    def __init__(self) -> None:
        psutil.cpu_percent()
        self._asked_at_s = time.monotonic()
        self._cpu: float | None = None

    def read(self) -> Channels:
        """Reads that follow each other faster than the window repeat its last processor time."""
        now_s = time.monotonic()
        if now_s - self._asked_at_s >= CPU_WINDOW_S:
            self._cpu, self._asked_at_s = psutil.cpu_percent(), now_s
        return Channels(
            temperature=_find_temperature(),
            cpu=self._cpu,
            memory=psutil.virtual_memory().percent,
            load1=psutil.getloadavg()[0],
        )

    def close(self) -> None:
        return None


def _find_temperature() -> float | None:
    # psutil has this function on Linux and FreeBSD only.
    read_all = getattr(psutil, "sensors_temperatures", None)
    if read_all is None:
        return None
    for readings in read_all().values():
        for reading in readings:
            if reading.current is not None:
                return float(reading.current)
    return None
