"""The command `demo`: three scripted agents at work, to be seen on the dashboard and in `scs top`."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated

from cyclopts import Parameter

from shared_context_server.cli.demo.agents import Failed
from shared_context_server.cli.demo.own_server import run_on_own_server
from shared_context_server.cli.demo.run import Demo
from shared_context_server.cli.demo.targets import Target, find_running
from shared_context_server.errors import ConfigurationError

MAX_SPEED = 100.0
MAX_DURATION_S = 86_400.0


def demo(
    *,
    url: Annotated[
        str | None,
        Parameter(help="Server to use; default: the one that runs on the data dir, else its own."),
    ] = None,
    data_dir: Annotated[
        str | None, Parameter(help="Data dir of the server, for its URL and key.")
    ] = None,
    duration: Annotated[float, Parameter(help="Seconds until it ends.")] = 120.0,
    speed: Annotated[float, Parameter(help="2 makes all pauses half as long.")] = 1.0,
    seed: Annotated[int, Parameter(help="Another seed makes other tasks and pauses.")] = 1,
) -> int:
    """Show a planner and two workers at work in a session of their own, without a model.

    They add and claim tasks, take leases, block each other for a while, and send messages. At the
    end, also after Ctrl-C, the session is deleted. If no server runs, one is started on a free port
    and a temporary data dir, which is removed at the end.
    """
    if not 0 < speed <= MAX_SPEED:
        raise ConfigurationError(f"--speed must be more than 0 and at most {MAX_SPEED:g}.")
    if not 0 < duration <= MAX_DURATION_S:
        raise ConfigurationError(
            f"--duration must be more than 0 and at most {MAX_DURATION_S:g} seconds."
        )
    running = find_running(url, data_dir)
    scripted = Demo(duration_s=duration, speed=speed, seed=seed, tell=_tell)
    try:
        if running is None:
            run_on_own_server(scripted)
        else:
            _run_on(running, scripted)
    except Failed as exc:
        print(f"shared-context-server: {exc}", file=sys.stderr)
        return 1
    return 0


def _run_on(server: Target, scripted: Demo) -> None:
    def end(number: int, frame: FrameType | None) -> None:
        scripted.stop()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    scripted.run(server)


def _tell(line: str) -> None:
    print(line, flush=True)
