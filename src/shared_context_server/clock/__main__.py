"""`python -m shared_context_server.clock`: runs the clock daemon without the server's CLI."""

import argparse
import logging
import os
import sys
import threading
from collections.abc import Sequence

from shared_context_server.clock.daemon import run_daemon
from shared_context_server.clock.errors import ClockError, OptionError
from shared_context_server.clock.options import DaemonOptions
from shared_context_server.clock.sources.registry import DEFAULT_SOURCES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon. Exit status: 0 after a normal end, 1 if it cannot run, 2 for bad options."""
    parser = build_parser()
    given = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if given.debug else logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(message)s",
    )
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
        stop = threading.Event()
        if given.until_eof:
            threading.Thread(target=_wait_for_eof, args=(stop,), daemon=True).start()
        run_daemon(options, stop=stop, on_ready=lambda: announce(options))
    except OptionError as exc:
        parser.error(str(exc))
    except ClockError as exc:
        print(f"{parser.prog}: {exc}", file=sys.stderr)
        return 1
    return 0


def announce(options: DaemonOptions) -> None:
    """Print that the daemon is ready, for a parent process that waits for it."""
    print(f"ready: prefix {options.prefix!r}, {options.hz:g} Hz, pid {os.getpid()}", flush=True)


def _wait_for_eof(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stop.set()


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
