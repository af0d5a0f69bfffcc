"""Data that is not this user's, or that others may read: told in one line, or made private.

Root may do everything, so where the tests run as root the commands get the rights of somebody else.
"""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared_context_server.auth.secrets import ensure_secrets
from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings
from shared_context_server.storage import migrate_storage
from tests.cli.conftest import PATIENCE_S, Run
from tests.forked import run_forked

NOBODY = 65_534
COMMANDS = [
    "serve",
    "serve --transport stdio",
    "client-config env",
    "token --agent-id a",
    "keys list",
]

RunAs = Callable[..., subprocess.CompletedProcess[str]]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def shared_tmp() -> Iterator[Path]:
    """A directory that every user may enter; those of pytest are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def run_as_other(env: dict[str, str], shared_tmp: Path) -> RunAs:
    """Run a command with a data dir, as somebody who is not root."""

    def run(command: str, data_dir: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        variables = {"SCS_DATA_DIR": str(data_dir), "HTTP_PORT": "0"} | variables
        uid = NOBODY if os.geteuid() == 0 else None
        return run_forked(command.split(), env | variables, shared_tmp, PATIENCE_S, uid=uid)

    return run


def require_one_line(answer: subprocess.CompletedProcess[str], named: Path) -> None:
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.startswith("shared-context-server: ")
    assert answer.stderr.count("\n") == 1
    assert str(named) in answer.stderr


@pytest.mark.parametrize("command", [*COMMANDS, "migrate"])
def test_a_parent_that_cannot_be_entered_is_one_line(
    run_as_other: RunAs, shared_tmp: Path, command: str
) -> None:
    closed = shared_tmp / "closed"
    (closed / "data").mkdir(parents=True)
    closed.chmod(0)
    require_one_line(run_as_other(command, closed / "data"), closed)
    closed.chmod(0o700)


@pytest.mark.parametrize("command", [*COMMANDS, "migrate"])
def test_a_data_dir_that_is_a_file_is_one_line(
    run_as_other: RunAs, shared_tmp: Path, command: str
) -> None:
    (shared_tmp / "data").touch()
    require_one_line(run_as_other(command, shared_tmp / "data"), shared_tmp / "data")


@pytest.mark.parametrize("command", [*COMMANDS, "migrate"])
def test_a_data_dir_that_cannot_be_written_is_one_line(
    run_as_other: RunAs, shared_tmp: Path, command: str
) -> None:
    (shared_tmp / "data").mkdir(mode=0o555)
    require_one_line(run_as_other(command, shared_tmp / "data"), shared_tmp / "data")


def test_secrets_that_cannot_be_read_are_one_line(run_as_other: RunAs, shared_tmp: Path) -> None:
    (shared_tmp / "data").mkdir()
    secrets = shared_tmp / "data" / "secrets.env"
    secrets.write_text("API_KEY=a-key-0123456789abcdef\n")
    secrets.chmod(0)
    require_one_line(run_as_other("client-config env", shared_tmp / "data"), secrets)


def as_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on what is there belongs to somebody else, and not to root."""
    me = os.geteuid()
    if me == 0:
        monkeypatch.setattr("shared_context_server.private_files.ROOT", -1)
    monkeypatch.setattr(os, "geteuid", lambda: me + 12_345)


@pytest.mark.parametrize("is_file_only", [False, True])
def test_data_of_another_user_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_file_only: bool
) -> None:
    mine = Settings(data_dir=tmp_path / "data")
    if is_file_only:
        migrate_storage(mine)
        named = tmp_path / "data" / "shared_context.db"
        mine = Settings(data_dir=tmp_path / "elsewhere", database_url=f"sqlite:///{named}")
    else:
        (tmp_path / "data").mkdir()
        named = tmp_path / "data"
    before = sorted(tmp_path.rglob("*"))
    as_another_user(monkeypatch)
    with pytest.raises(ConfigurationError, match=f"{named} belongs to the user"):
        migrate_storage(mine)
    assert sorted(tmp_path.rglob("*")) == before


def test_keys_of_another_user_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_secrets(Settings(data_dir=tmp_path))
    as_another_user(monkeypatch)
    with pytest.raises(ConfigurationError, match="belongs to the user"):
        ensure_secrets(Settings(data_dir=tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
@pytest.mark.parametrize("command", COMMANDS)
def test_root_does_not_write_into_the_data_dir_of_somebody_else(
    scs: Run, tmp_path: Path, command: str
) -> None:
    (tmp_path / "data").mkdir()
    os.chown(tmp_path / "data", NOBODY, NOBODY)
    require_one_line(scs(*command.split(), SCS_DATA_DIR=str(tmp_path / "data")), tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("command", ["token --agent-id a", "migrate", "client-config env"])
def test_what_others_could_read_is_made_private_and_told(
    scs: Run, tmp_path: Path, command: str
) -> None:
    data = tmp_path / "data"
    scs("token", "--agent-id", "a")
    names = ["secrets.env"] if command.startswith("client") else ["shared_context.db"]
    for name in names:
        (data / name).chmod(0o644)
    answer = scs(*command.split(), SCS_DATA_DIR=str(data))
    assert answer.returncode == 0
    for name in names:
        assert mode_of(data / name) == 0o600
        assert f"{data / name} was open to other users (mode 0644)" in answer.stderr


def test_a_data_dir_that_everybody_may_write_to_is_told(scs: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o777)
    answer = scs("token", "--agent-id", "a")
    assert answer.returncode == 0
    assert f"every user can write to {tmp_path / 'data'}" in answer.stderr
    assert mode_of(tmp_path / "data") == 0o777


def test_a_directory_for_all_that_protects_its_files_is_not_told(scs: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o1777)
    assert "every user can write" not in scs("token", "--agent-id", "a").stderr
