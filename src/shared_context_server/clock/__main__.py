"""`python -m shared_context_server.clock`: runs the clock daemon without the server's CLI."""

import argparse
import os
import sys
from collections.abc import Sequence

from shared_context_server.clock import process
from shared_context_server.clock.errors import OptionError
from shared_context_server.clock.options import DaemonOptions, open_sources
from shared_context_server.clock.process import make_command
from shared_context_server.clock.sources.registry import DEFAULT_SOURCES


def main(arguments: Sequence[str] | None = None) -> int:  # noqa: RET503 - exec does not return
    """Check the options and run the daemon. Exit status: 0 after a normal end, 1 if it cannot run, 2
    for bad options."""
    parser = build_parser()
    given = parser.parse_args(arguments)
    try:
        options = DaemonOptions(
            prefix=given.prefix,
            hz=given.hz,
            ntp=tuple(given.ntp),
            ntp_interval_s=given.ntp_interval,
            ntp_hold_s=given.ntp_hold,
            sources=tuple(given.source) or DEFAULT_SOURCES,
            sensor_interval_s=given.sensor_interval,
        )
        open_sources(options)
    except OptionError as exc:
        parser.error(str(exc))
    command = make_command(options, debug=given.debug, until_eof=given.until_eof)
    if sys.platform == "win32":  # there, the parent would not wait for the new process
        return process.main(command[3:])
    # Replaces this process: the daemon does not need the parser.
    os.execv(command[0], command)  # noqa: S606 - no shell is needed


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m shared_context_server.clock",
        description="Keep time and sensors in shared memory.",
    )
    add = parser.add_argument
    add("--hz", "--freq", type=float, default=1000.0, help="ticks a second (default 1000)")
    add(
        "--ntp",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="a time server, repeatable; or 'kernel': the kernel's estimate of the system clock",
    )
    add(
        "--ntp-interval", type=float, default=64.0, metavar="S", help="seconds between queries (64)"
    )
    add(
        "--ntp-hold",
        type=float,
        default=3600.0,
        metavar="S",
        help="how long the clock counts as synchronized after the last good answer (3600)",
    )
    add(
        "--source",
        action="append",
        default=[],
        help="hwmon[:CHIP], iio[:DEVICE], psutil, simulated, python:package.module:function, "
        f"exec:COMMAND or none; repeatable (default {' '.join(DEFAULT_SOURCES)})",
    )
    add(
        "--sensor-interval",
        type=float,
        default=1.0,
        metavar="S",
        help="seconds between readings (1); 0 reads as often as the clock ticks",
    )
    add("--debug", action="store_true", help="log each answer of a server and each reading")
    add("--prefix", default="", help="prefix of the segments' names, to run several daemons")
    add("--until-eof", action="store_true", help="stop at the end of standard input")
    return parser


if __name__ == "__main__":
    sys.exit(main())
