"""Reads the sensor sources and publishes their values.

Each source is read in its own thread. So a source that hangs or fails affects neither the other
sources nor the clock.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Sequence

from shared_context_server.clock.layout import encode_sensors, sensor_stale_after_ns
from shared_context_server.clock.log import Logger
from shared_context_server.clock.sources.channels import Channels, Source

logger = Logger(__name__)

BACK_OFF_LIMIT_S = 60.0


class SensorLoop:
    """Merges the latest readings of all sources into one record.

    A channel that several sources have is taken from the first of them. `publish` gets a sensor
    record after each reading and each failure; one thread at a time calls it, and none after
    `stop`. The time of a record is that of its oldest reading. A reading so old that the record
    would be stale is left out.
    """

    def __init__(
        self, sources: Sequence[Source], interval_s: float, publish: Callable[[bytes], None]
    ) -> None:
        self._sources = sources
        self._interval_s = interval_s
        self._publish = publish
        self._usable_for_ns = sensor_stale_after_ns(round(interval_s * 1000)) // 2
        self._readings: list[tuple[int, Channels] | None] = [None] * len(sources)
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def start(self) -> None:
        with self._lock:
            self._publish_merged()
        for index, source in enumerate(self._sources):
            threading.Thread(
                target=self._read_source, args=(index, source), name=source.name, daemon=True
            ).start()

    def stop(self) -> None:
        """Stop all readings. Does not wait for a source that hangs: its thread is a daemon thread."""
        with self._lock:
            self._stopping.set()
        for source in self._sources:
            source.close()

    def _read_source(self, index: int, source: Source) -> None:
        failures = 0
        delay_s = 0.0
        while not self._stopping.wait(delay_s):
            started_ns = time.monotonic_ns()
            try:
                channels = source.read()
            except (Exception, SystemExit) as exc:  # noqa: BLE001 - a source runs the user's code
                failures += 1
                if failures == 1 and not self._stopping.is_set():
                    logger.warning("%s; trying again", str(exc) or type(exc).__name__)
                self._take_reading(index, None)
                delay_s = min(self._interval_s * 2**failures, self._find_back_off_limit())
            else:
                if failures:
                    logger.info("sensor source %r gives readings again", source.name)
                failures = 0
                logger.debug("sensor source %r: %s", source.name, channels)
                self._take_reading(index, channels)
                elapsed_s = (time.monotonic_ns() - started_ns) / 1e9
                delay_s = max(0.0, self._interval_s - elapsed_s)

    def _find_back_off_limit(self) -> float:
        return max(BACK_OFF_LIMIT_S, self._interval_s)

    def _take_reading(self, index: int, channels: Channels | None) -> None:
        with self._lock:
            if self._stopping.is_set():
                return
            reading = None if channels is None else (time.monotonic_ns(), channels)
            self._readings[index] = reading
            self._publish_merged()

    def _publish_merged(self) -> None:
        now_ns = time.monotonic_ns()
        oldest_ns = now_ns
        values: dict[str, float] = {}
        is_simulated = False
        for reading in self._readings:
            if reading is None or now_ns - reading[0] > self._usable_for_ns:
                continue
            read_at_ns, channels = reading
            new = {
                name: value
                for name in ("temperature", "humidity", "cpu", "memory", "load1")
                if name not in values and (value := getattr(channels, name)) is not None
            }
            if new:
                values |= new
                oldest_ns = min(oldest_ns, read_at_ns)
                is_simulated = is_simulated or channels.is_simulated
        record = encode_sensors(
            temperature_c=values.get("temperature", math.nan),
            humidity_percent=values.get("humidity", math.nan),
            cpu_percent=values.get("cpu", math.nan),
            memory_percent=values.get("memory", math.nan),
            load1=values.get("load1", math.nan),
            simulated=is_simulated,
            monotonic_ns=oldest_ns,
            pid=os.getpid(),
        )
        self._publish(record)
