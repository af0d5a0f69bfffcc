"""The clock daemon: writes the time and the sensor values of one prefix to shared memory."""

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from shared_context_server.clock.layout import (
    CLOCK_LAYOUT,
    SENSOR_LAYOUT,
    ClockFlag,
    encode_clock,
)
from shared_context_server.clock.log import Logger
from shared_context_server.clock.options import DaemonOptions, open_sources, open_timekeeper
from shared_context_server.clock.segment_writer import SegmentWriter
from shared_context_server.clock.sensors import SensorLoop
from shared_context_server.clock.signals import find_ending_signals
from shared_context_server.clock.ticks import NS, reduce_timer_slack, run_ticks
from shared_context_server.clock.timesync.timekeeper import Timekeeper
from shared_context_server.clock.writer_lock import hold_writer_lock

logger = Logger(__name__)

CHECK_SEGMENTS_EVERY_NS = NS // 10
SWITCH_INTERVAL_S = 0.0005
"""Python's default is 5 ms: a busy sensor function could delay the ticks for that long."""

VALID_ONLY = int(ClockFlag.VALID)
VALID_AND_SYNCHRONIZED = int(ClockFlag.VALID | ClockFlag.SYNCHRONIZED)


def run_daemon(
    options: DaemonOptions,
    *,
    stop: threading.Event | None = None,
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Run the daemon until `stop` is set.

    In the main thread SIGINT, SIGTERM and SIGHUP set `stop`. The segments are removed at the end,
    after an error too. `on_ready` is called once, when readers can attach. Raises
    DaemonAlreadyRunningError, OptionError or SegmentAccessError.
    """
    stop = stop or threading.Event()
    with ExitStack() as stack:
        stack.enter_context(_stop_on_signals(stop))
        timekeeper = open_timekeeper(options)
        sources = open_sources(options)
        lock = stack.enter_context(hold_writer_lock(options.prefix))
        stack.enter_context(_reduce_interpreter_pauses())
        clock = SegmentWriter(CLOCK_LAYOUT, options.prefix, lock=lock)
        stack.callback(clock.close)
        sensors = SegmentWriter(SENSOR_LAYOUT, options.prefix, lock=lock)
        stack.callback(sensors.close)
        loop = SensorLoop(sources, options.read_sensors_every_s, sensors.write_record)
        ticker = _Ticker(options, timekeeper, clock, sensors)
        ticker.tick()
        loop.start()
        stack.callback(loop.stop)
        timekeeper.start()
        stack.callback(timekeeper.stop)
        logger.info("clock daemon started: prefix %r, %g Hz", options.prefix, options.hz)
        if on_ready is not None:
            on_ready()
        run_ticks(options.period_ns, ticker.tick, stop.is_set)
    logger.info("clock daemon stopped: prefix %r", options.prefix)


class _Ticker:
    """Publishes the time at each tick, and restores segments that another process removed."""

    def __init__(
        self,
        options: DaemonOptions,
        timekeeper: Timekeeper,
        clock: SegmentWriter,
        sensors: SegmentWriter,
    ) -> None:
        self._timekeeper = timekeeper
        self._clock = clock
        self._sensors = sensors
        self._pid = os.getpid()
        self._tick_period_us = max(1, round(options.period_ns / 1000))
        self._sensor_interval_ms = max(1, round(options.read_sensors_every_s * 1000))
        self._check_segments_at_ns = 0

    def tick(self) -> None:
        tick = self._timekeeper.tick()
        self._clock.write_record(
            encode_clock(
                time_s=tick.time_s,
                last_sync_s=tick.last_sync_s,
                flags=VALID_AND_SYNCHRONIZED if tick.is_synchronized else VALID_ONLY,
                monotonic_ns=tick.monotonic_ns,
                offset_s=tick.offset_s,
                error_bound_s=tick.error_bound_s,
                pid=self._pid,
                tick_period_us=self._tick_period_us,
                sensor_interval_ms=self._sensor_interval_ms,
            )
        )
        if tick.monotonic_ns >= self._check_segments_at_ns:
            self._check_segments_at_ns = tick.monotonic_ns + CHECK_SEGMENTS_EVERY_NS
            self._clock.restore()
            self._sensors.restore()


@contextmanager
def _stop_on_signals(stop: threading.Event) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def request_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    previous = {number: signal.signal(number, request_stop) for number in find_ending_signals()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _reduce_interpreter_pauses() -> Iterator[None]:
    """Switch threads sooner and keep garbage collections short, so that ticks are on time."""
    switch_interval_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    reduce_timer_slack()
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(switch_interval_s)
