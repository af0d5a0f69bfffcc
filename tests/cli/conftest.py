"""The command line as its users run it: in processes of its own, executed or forked."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from shared_context_server.settings import Settings, read_secrets
from tests.forked import ForkedProcess, run_forked

COMMAND = [sys.executable, "-m", "shared_context_server"]
PATIENCE_S = 30.0  # for anything a process does; far above what it takes
STOP_S = 10.0

Run = Callable[..., subprocess.CompletedProcess[str]]


def make_env(directory: Path) -> dict[str, str]:
    """The environment without settings of ours, but for a data dir in that directory."""
    ours = {name.upper() for name in Settings.model_fields} | {"ENV_FILE"}
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name.upper() not in ours and not name.upper().startswith(("SCS_", "OTEL_"))
    }
    return inherited | {"DATA_DIR": str(directory / "data"), "HOME": str(directory)}


@pytest.fixture
def hangup_counts() -> Iterator[None]:
    """Executed processes inherit that SIGHUP is not ignored, even where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Of a test's own."""
    return make_env(tmp_path)


@pytest.fixture
def scs(env: dict[str, str], tmp_path: Path) -> Run:
    """Run one command to its end."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return run_forked(arguments, env | variables, tmp_path, PATIENCE_S)

    return run


class ServerProcess:
    """A `serve` process, and what it has said on stderr so far.

    It is forked, unless it is wanted executed or starts processes that are executed as it was.
    `prepare` as for a ForkedProcess.
    """

    def __init__(
        self,
        arguments: list[str],
        env: dict[str, str],
        cwd: Path,
        *,
        is_executed: bool = False,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self.data_dir = Path(env["DATA_DIR"])
        self.url = ""
        self.process: subprocess.Popen[str] | ForkedProcess
        if is_executed or "--reload" in arguments:
            self.process = subprocess.Popen(
                [*COMMAND, "serve", *arguments],
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        else:
            self.process = ForkedProcess(["serve", *arguments], env, cwd, prepare=prepare)
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._seen: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The next line of stderr in which the pattern is found."""
        while (line := self._lines.get(timeout=PATIENCE_S)) is not None:
            self._seen.append(line)
            if found := re.search(pattern, line):
                return found
        self._lines.put(None)  # for whoever asks again
        raise AssertionError(f"ended without {pattern!r}:\n{''.join(self._seen)}")

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """Signal the process, by its id; its exit code."""
        self.process.send_signal(sig)
        return self.process.wait(STOP_S)

    def kill(self) -> None:
        """End the process if it still runs, and take what it has said."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(STOP_S)
        self._reader.join(STOP_S)
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def stderr(self) -> str:
        """All of stderr, once the process has ended."""
        assert self.process.poll() is not None
        while (line := self._lines.get(timeout=PATIENCE_S)) is not None:
            self._seen.append(line)
        self._lines.put(None)  # for whoever asks again
        return "".join(self._seen)

    @property
    def secrets(self) -> dict[str, str]:
        return read_secrets(self.data_dir / "secrets.env")


Serve = Callable[..., AbstractContextManager[ServerProcess]]


def make_serve(env: dict[str, str], directory: Path) -> Serve:
    """`with serve(*arguments, **variables) as server`: an HTTP server on a free port, that answers
    at server.url. With is_ready=False it is not waited for; is_executed and prepare as for a
    ServerProcess."""

    @contextmanager
    def start(
        *arguments: str,
        is_ready: bool = True,
        is_executed: bool = False,
        prepare: Callable[[], None] | None = None,
        **variables: str,
    ) -> Iterator[ServerProcess]:
        variables = {"HTTP_PORT": "0"} | env | variables
        server = ServerProcess(
            list(arguments), variables, directory, is_executed=is_executed, prepare=prepare
        )
        try:
            if is_ready:
                server.url = server.wait_for(r"(http://[^/\s\"]+)/health")[1]
            yield server
        finally:
            server.kill()

    return start


@pytest.fixture
def serve(env: dict[str, str], tmp_path: Path) -> Serve:
    """What make_serve returns, for one test."""
    return make_serve(env, tmp_path)
