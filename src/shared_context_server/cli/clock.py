"""The command `clock`: runs the clock daemon."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from shared_context_server.cli.options import load_options
from shared_context_server.clock import OptionError
from shared_context_server.clock.options import DaemonOptions
from shared_context_server.clock.process import make_command
from shared_context_server.environment import EnvironmentOwner
from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import LogLevel, Settings


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ClockOptions:
    """Options of the clock daemon. Each one sets the setting CLOCK_… of the same name."""

    prefix: Annotated[str | None, Parameter(help="Prefix of the segments' names.")] = None
    hz: Annotated[float | None, Parameter(name=["--hz", "--freq"], help="Ticks a second.")] = None
    ntp: Annotated[
        tuple[str, ...] | None,
        Parameter(negative="", help="HOST[:PORT], repeatable; or kernel; or none."),
    ] = None
    ntp_interval: Annotated[float | None, Parameter(help="Seconds between queries.")] = None
    ntp_hold: Annotated[
        float | None,
        Parameter(help="Seconds that the clock counts as synchronized after an answer."),
    ] = None
    source: Annotated[
        tuple[str, ...] | None,
        Parameter(
            negative="",
            help="hwmon, iio, psutil, simulated, python:package.module:function, exec:COMMAND "
            "or none; repeatable.",
        ),
    ] = None
    sensor_interval: Annotated[
        float | None,
        Parameter(help="Seconds between readings; 0 reads as often as the clock ticks."),
    ] = None
    debug: Annotated[
        bool, Parameter(negative="", help="Log each answer of a server and each reading.")
    ] = False

    def load(self) -> Settings:
        """The settings with these options. Raises ConfigurationError."""
        overrides = {
            "clock_prefix": self.prefix,
            "clock_hz": self.hz,
            "clock_ntp": self.ntp,
            "clock_ntp_interval": self.ntp_interval,
            "clock_ntp_hold": self.ntp_hold,
            "clock_sources": self.source,
            "clock_sensor_interval": self.sensor_interval,
            "log_level": LogLevel.DEBUG if self.debug else None,
        }
        return load_options(EnvironmentOwner.SERVER, overrides)


def clock(options: ClockOptions = ClockOptions()) -> None:
    """Keep time and sensors in shared memory until SIGTERM, SIGINT or SIGHUP.

    Only one daemon can run under each prefix.
    """
    command = daemon_command(options.load())
    # Replaces this process: the daemon does not need the modules of the command line.
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)  # noqa: S606 - no shell is needed


def daemon_command(settings: Settings, *, until_eof: bool = False) -> list[str]:
    """The command that runs the daemon with these settings. Raises ConfigurationError."""
    try:
        options = DaemonOptions(
            prefix=settings.clock_prefix,
            hz=settings.clock_hz,
            ntp=settings.clock_ntp,
            ntp_interval_s=settings.clock_ntp_interval,
            ntp_hold_s=settings.clock_ntp_hold,
            sources=settings.clock_sources,
            sensor_interval_s=settings.clock_sensor_interval,
        )
    except OptionError as exc:
        raise ConfigurationError(f"The clock cannot run: {exc}.") from exc
    return make_command(options, debug=settings.log_level is LogLevel.DEBUG, until_eof=until_eof)
