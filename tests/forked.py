"""The command line in processes that are forked from one that has imported it.

Importing is nearly all that most of these processes would do, and the tests start hundreds of
them. In everything else a forked process is like an executed one: arguments, environment, working
directory, streams, signals and exit code are its own. What is said while it is imported, and what
the interpreter is told by options and variables, only an executed one can show.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread

from shared_context_server.__main__ import main

_CONTEXT = multiprocessing.get_context("forkserver")
_COMMANDS = (
    *("agents", "backup", "channel", "client_config", "clock", "clock_child", "completion"),
    *("doctor", "http", "keys", "memory", "migrate", "moving", "post", "search", "serve"),
    *("sessions", "status", "stdio", "tail", "tasks", "token", "top", "watch"),
    *("hub.in_process", "hub.over_http"),
)
_HOOK = ("hook", "hook_options", "hook_wait", "notices")
_CONTEXT.set_forkserver_preload(
    [f"shared_context_server.cli.{name}" for name in _COMMANDS]
    + [f"shared_context_server.remote.{name}" for name in _HOOK]
    + ["shared_context_server.storage.sqlite", "shared_context_server.storage.postgres", __name__]
)


class ForkedProcess:
    """As much of subprocess.Popen as tests use, with text on the streams; on stdin, if it has one,
    what is written to it, else nothing. `uid`: the user whose rights it has; only root can say so.
    `prepare`: a function of a module that the process calls first, to change constants."""

    def __init__(
        self,
        arguments: Sequence[str],
        env: dict[str, str],
        cwd: Path,
        *,
        has_stdin: bool = False,
        uid: int | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self.args = ["shared-context-server", *arguments]
        read_in, write_in = os.pipe()
        read_out, write_out = os.pipe()
        read_err, write_err = os.pipe()
        self.stdin = os.fdopen(write_in, "w", encoding="utf-8")
        self.stdout = os.fdopen(read_out, encoding="utf-8")
        self.stderr = os.fdopen(read_err, encoding="utf-8")
        # Connections, because these are what may be handed over when a process starts.
        with (
            Connection(read_in, writable=False) as stdin,
            Connection(write_out, readable=False) as stdout,
            Connection(write_err, readable=False) as stderr,
        ):
            streams = (stdin, stdout, stderr)
            self._process = _CONTEXT.Process(
                target=_run, args=(self.args, env, cwd, streams, uid, prepare)
            )
            self._process.start()
        if not has_stdin:
            self.stdin.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def run_forked(
    arguments: Sequence[str],
    env: dict[str, str],
    cwd: Path,
    timeout: float,
    *,
    uid: int | None = None,
    stdin: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run it to its end; raises subprocess.TimeoutExpired, and it is killed, if that does not come."""
    process = ForkedProcess(arguments, env, cwd, has_stdin=bool(stdin), uid=uid)
    if stdin:
        with process.stdin:
            process.stdin.write(stdin)
    said = {"stdout": "", "stderr": ""}

    def read(name: str) -> None:
        with getattr(process, name) as stream:
            said[name] = stream.read()

    readers = [Thread(target=read, args=(name,)) for name in said]
    for reader in readers:
        reader.start()
    try:
        code = process.wait(timeout)
    finally:
        process.kill()
        for reader in readers:
            reader.join(timeout)
    return subprocess.CompletedProcess(process.args, code, **said)


def close_origin() -> None:
    """End the process that others are forked from, and the standard library's helper of both, so
    that they are gone, and have told what they covered, before the run ends."""
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
    forkserver._forkserver._stop()
    resource_tracker._resource_tracker._stop()


def _run(
    arguments: list[str],
    env: dict[str, str],
    cwd: Path,
    streams: tuple[Connection, ...],
    uid: int | None,
    prepare: Callable[[], None] | None,
) -> None:
    """In the forked process."""
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - until the end
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.modules["__main__"] = program = import_module("shared_context_server.__main__")
    sys.argv = [str(program.__file__), *arguments[1:]]
    if prepare is not None:
        prepare()
    if uid is None:
        main()
        return
    os.setgroups([])
    os.setegid(uid)
    os.seteuid(uid)
    try:
        main()
    finally:
        os.seteuid(0)  # what the process has covered is written by the user who runs the tests
