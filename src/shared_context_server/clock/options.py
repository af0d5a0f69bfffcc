"""The options of the clock daemon and their checks.

Modules for time servers are imported only where they are asked for: they take 3 MB.
"""

import math

from shared_context_server.clock.errors import OptionError
from shared_context_server.clock.segment import check_prefix
from shared_context_server.clock.sources.channels import Source
from shared_context_server.clock.sources.registry import DEFAULT_SOURCES, open_source
from shared_context_server.clock.timesync.timekeeper import SystemTime, Timekeeper

KERNEL = "kernel"
NONE = "none"
EACH_TICK = 0


class DaemonOptions:
    """Options of the clock daemon. The constructor raises OptionError for an invalid value.

    `ntp`: servers as HOST[:PORT], or ("kernel",), or () for the system clock.
    `sources`: see `sources.registry`. A channel comes from the first source that has it.
    `sensor_interval_s`: 0 reads each source as often as the clock ticks.
    """

    def __init__(
        self,
        *,
        prefix: str = "",
        hz: float = 1000.0,
        ntp: tuple[str, ...] = (),
        ntp_interval_s: float = 64.0,
        ntp_hold_s: float = 3600.0,
        sources: tuple[str, ...] = DEFAULT_SOURCES,
        sensor_interval_s: float = 1.0,
    ) -> None:
        self.prefix = check_prefix(prefix)
        self.hz = hz
        self.ntp = ntp
        self.ntp_interval_s = ntp_interval_s
        self.ntp_hold_s = ntp_hold_s
        self.sources = sources
        self.sensor_interval_s = sensor_interval_s
        _check_range("--hz", self.hz, 0.1, 10_000)
        _check_range("--ntp-interval", self.ntp_interval_s, 0.1, 86_400)
        _check_range("--ntp-hold", self.ntp_hold_s, 0, 10_000_000)
        if self.sensor_interval_s != EACH_TICK:
            _check_range("--sensor-interval", self.sensor_interval_s, 0.0001, 86_400)
        for option, words in (("--ntp", self.ntp), ("--source", self.sources)):
            _check_is_tuple(option, words)
            if NONE in words and len(words) > 1:
                raise OptionError(option, "'none' cannot be combined with other values")
        if KERNEL in self.ntp and len(self.ntp) > 1:
            raise OptionError("--ntp", "'kernel' cannot be combined with servers")
        if len(set(self.ntp)) < len(self.ntp):
            raise OptionError("--ntp", "each server may be named only once")
        if self.ntp not in ((), (KERNEL,), (NONE,)):
            from shared_context_server.clock.timesync.exchange import parse_server  # noqa: PLC0415

            for server in self.ntp:
                parse_server(server)

    @property
    def period_ns(self) -> int:
        return round(1e9 / self.hz)

    @property
    def read_sensors_every_s(self) -> float:
        return self.sensor_interval_s or 1 / self.hz


def open_timekeeper(options: DaemonOptions) -> Timekeeper:
    """The time source of these options. Raises OptionError if this machine does not have it."""
    if options.ntp in ((), (NONE,)):
        return SystemTime()
    if options.ntp == (KERNEL,):
        from shared_context_server.clock.timesync.kernel import (  # noqa: PLC0415
            KernelTime,
            open_kernel_clock,
        )

        return KernelTime(open_kernel_clock())
    from shared_context_server.clock.timesync.exchange import parse_server  # noqa: PLC0415
    from shared_context_server.clock.timesync.servers import NtpTime  # noqa: PLC0415

    servers = [parse_server(server) for server in options.ntp]
    return NtpTime(servers, options.ntp_interval_s, options.ntp_hold_s)


def open_sources(options: DaemonOptions) -> list[Source]:
    """The sensor sources of these options. Raises OptionError for an unknown kind."""
    if options.sources == (NONE,):
        return []
    return [open_source(source) for source in options.sources]


def _check_is_tuple(option: str, words: object) -> None:
    if not isinstance(words, tuple):
        raise OptionError(option, "must be a tuple of strings")


def _check_range(option: str, value: float, low: float, high: float) -> None:
    if not math.isfinite(value) or not low <= value <= high:
        raise OptionError(option, f"{value} is not between {low:g} and {high:g}")
