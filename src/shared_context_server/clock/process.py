"""The daemon's own process: `python -m shared_context_server.clock.process --prefix= --hz=1000 …`.

Commands check their options, then replace themselves by this module: it imports only what the daemon
needs. Its options are not for people: each is one word, `--name=value`.
"""

import os
import sys
import threading
from collections.abc import Sequence

from shared_context_server.clock.daemon import run_daemon
from shared_context_server.clock.errors import ClockError, OptionError
from shared_context_server.clock.log import show_debug_lines
from shared_context_server.clock.options import DaemonOptions

NAME = "shared-context-server clock"


def make_command(options: DaemonOptions, *, debug: bool, until_eof: bool) -> list[str]:
    """The command that runs the daemon with these options."""
    return [
        *(sys.executable, "-m", "shared_context_server.clock.process"),
        f"--prefix={options.prefix}",
        f"--hz={options.hz}",
        *(f"--ntp={server}" for server in options.ntp),
        f"--ntp-interval={options.ntp_interval_s}",
        f"--ntp-hold={options.ntp_hold_s}",
        *(f"--source={source}" for source in options.sources),
        f"--sensor-interval={options.sensor_interval_s}",
        *(("--debug",) if debug else ()),
        *(("--until-eof",) if until_eof else ()),
    ]


def main(arguments: Sequence[str]) -> int:
    """Run the daemon. Exit status: 0 after a normal end, 1 if it cannot run, 2 for bad options."""
    given: dict[str, list[str]] = {}
    for word in arguments:
        name, _, value = word.partition("=")
        given.setdefault(name, []).append(value)
    if "--debug" in given:
        show_debug_lines()
    try:
        options = DaemonOptions(
            prefix=given["--prefix"][0],
            hz=float(given["--hz"][0]),
            ntp=tuple(given.get("--ntp", ())),
            ntp_interval_s=float(given["--ntp-interval"][0]),
            ntp_hold_s=float(given["--ntp-hold"][0]),
            sources=tuple(given.get("--source", ())),
            sensor_interval_s=float(given["--sensor-interval"][0]),
        )
        stop = threading.Event()
        if "--until-eof" in given:
            threading.Thread(target=_wait_for_eof, args=(stop,), daemon=True).start()
        run_daemon(options, stop=stop, on_ready=lambda: announce(options))
    except OptionError as exc:
        print(f"{NAME}: error: {exc}", file=sys.stderr)
        return 2
    except ClockError as exc:
        print(f"{NAME}: {exc}", file=sys.stderr)
        return 1
    return 0


def announce(options: DaemonOptions) -> None:
    """Print that the daemon is ready, for a parent process that waits for it."""
    print(f"ready: prefix {options.prefix!r}, {options.hz:g} Hz, pid {os.getpid()}", flush=True)


def _wait_for_eof(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stop.set()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
