"""Processor time, memory and temperature by psutil, for systems other than Linux."""

import psutil


class PsutilMachine:
    def measure_cpu_percent(self) -> float | None:
        return psutil.cpu_percent()

    def measure_memory_percent(self) -> float:
        return psutil.virtual_memory().percent

    def find_temperature(self) -> float | None:
        # psutil has this function on Linux and FreeBSD only.
        read_all = getattr(psutil, "sensors_temperatures", None)
        if read_all is None:
            return None
        for readings in read_all().values():
            for reading in readings:
                if reading.current is not None:
                    return float(reading.current)
        return None
