"""Commands whose standard streams are closed, cannot be written, or are not of UTF-8."""

from __future__ import annotations

import shlex
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import COMMAND, PATIENCE_S, Run

FULL = Path("/dev/full")


def execute(
    command: str, redirection: str, env: dict[str, str], cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Not forked: what the interpreter finds at its start, and does at its end, matters."""
    return subprocess.run(
        ["sh", "-c", f"{shlex.join(COMMAND)} {command} {redirection}"],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["keys create --agent-id a", "export -", "--help"])
def test_output_that_cannot_be_written_is_one_line_and_a_failure(
    env: dict[str, str], tmp_path: Path, scs: Run, command: str, unbuffered: str
) -> None:
    scs("migrate")
    answer = execute(command, f"> {FULL}", env | {"PYTHONUNBUFFERED": unbuffered}, tmp_path)
    assert answer.returncode == 1
    reason = "standard output cannot be written: No space left on device."
    said_before = ("key_", "Keys were generated")
    told = [line for line in answer.stderr.splitlines() if not line.startswith(said_before)]
    assert told == [f"shared-context-server: {reason}"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough_is_told_nothing(
    env: dict[str, str], tmp_path: Path, unbuffered: str
) -> None:
    answer = execute("--help", "| true", env | {"PYTHONUNBUFFERED": unbuffered}, tmp_path)
    assert answer.stderr == ""


@pytest.mark.parametrize("redirection", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["export -", "keys create --agent-id a"])
def test_closed_streams_are_as_the_null_device(
    env: dict[str, str], tmp_path: Path, scs: Run, command: str, redirection: str
) -> None:
    scs("migrate")
    answer = execute(command, redirection, env, tmp_path)
    assert answer.returncode == 0
    assert "Traceback" not in answer.stderr


def test_characters_that_the_encoding_lacks_are_shown_as_escapes(
    env: dict[str, str], tmp_path: Path, scs: Run
) -> None:
    scs("keys", "create", "--agent-id", "é")
    answer = execute("keys list", "", env | {"PYTHONIOENCODING": "ascii"}, tmp_path)
    assert answer.returncode == 0
    assert answer.stdout.split("\t")[1] == r"\xe9"


def is_open(port: int) -> bool:
    """Whether somebody listens at the port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_server_whose_log_is_on_a_full_disk_serves(env: dict[str, str], tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with FULL.open("w") as full:
        server = subprocess.Popen(
            [*COMMAND, "serve", "--port", str(port)], env=env, cwd=tmp_path, stderr=full
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not is_open(port) and server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    finally:
        server.kill()
        server.wait()
