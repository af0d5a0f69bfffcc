"""Commands say in words that no server answers at an address, and what to do."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import make_env
from tests.cli.programs import Program

COMMANDS = {
    "hook": (["hook", "--verbose", "--agent-id", "bob"], 0),
    "wait": (["wait", "session_1", "--timeout", "0.5"], 124),
    "wait for all": (["wait", "--timeout", "0.5"], 124),
    "guard": (["guard", "--session", "session_1"], 0),
    "sessions": (["sessions"], 1),
    "demo": (["demo"], 2),
}


@pytest.fixture
def closed_url() -> Iterator[str]:
    """An address where nobody listens."""
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))  # not listening, and given to nobody else
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_that_no_server_answers_at_the_address(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    closed_url: str,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)  # for guard, which looks at what is staged
    (tmp_path / "file").write_text("")
    subprocess.run(["git", "add", "file"], check=True)
    arguments, code = COMMANDS[name]
    answer = Program(monkeypatch, capfd, make_env(tmp_path))(*arguments, "--url", closed_url)
    assert f"No server answers at {closed_url}. Start it with `scs serve`" in answer.err
    assert "Errno" not in answer.err
    assert answer.code == code
