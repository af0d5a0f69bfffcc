"""The keys that are made on the first start."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from shared_context_server.auth import secrets
from shared_context_server.auth.secrets import ensure_secrets
from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings, read_secrets

NAMES = ("API_KEY", "ADMIN_API_KEY", "JWT_SECRET_KEY")


def bare_settings(data_dir: Path, **given: Any) -> Settings:
    keys: dict[str, Any] = dict.fromkeys(name.lower() for name in NAMES)
    return Settings(data_dir=data_dir, **(keys | given))


def values(settings: Settings) -> dict[str, str]:
    return {name: getattr(settings, name.lower()).get_secret_value() for name in NAMES}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_first_start_makes_all_keys_for_the_owner_alone(tmp_path: Path) -> None:
    started, is_generated = ensure_secrets(bare_settings(tmp_path / "new" / "data"))
    assert is_generated
    assert read_secrets(started.secrets_path) == values(started)
    assert len(set(values(started).values())) == 3
    assert len(values(started)["JWT_SECRET_KEY"].encode()) >= 32
    assert mode_of(started.secrets_path) == 0o600
    assert mode_of(started.data_dir) == 0o700


def test_a_second_start_takes_the_same_keys(tmp_path: Path) -> None:
    first, _ = ensure_secrets(bare_settings(tmp_path))
    second, is_generated = ensure_secrets(bare_settings(tmp_path))
    assert not is_generated
    assert values(second) == values(first)


def test_keys_of_the_environment_are_not_written(tmp_path: Path) -> None:
    key = "from-the-environment"
    started, is_generated = ensure_secrets(bare_settings(tmp_path, api_key=key))
    assert is_generated
    assert values(started)["API_KEY"] == key
    assert set(read_secrets(started.secrets_path)) == {"ADMIN_API_KEY", "JWT_SECRET_KEY"}
    assert key not in started.secrets_path.read_text()


def test_nothing_is_touched_when_no_key_is_missing(tmp_path: Path) -> None:
    settings = bare_settings(
        tmp_path / "data", api_key="a" * 16, admin_api_key="b" * 16, jwt_secret_key="c" * 32
    )
    assert ensure_secrets(settings) == (settings, False)
    assert not settings.data_dir.exists()


def test_entries_that_are_there_stay_as_they_are(tmp_path: Path) -> None:
    written = "# mine\nAPI_KEY='my own key, of old'\nOTHER=1"
    (tmp_path / "secrets.env").write_text(written)
    started, is_generated = ensure_secrets(bare_settings(tmp_path))
    assert is_generated
    assert values(started)["API_KEY"] == "my own key, of old"
    assert started.secrets_path.read_text().startswith(written + "\n")
    assert mode_of(started.secrets_path) == 0o600


START = """
import sys
from pathlib import Path
from shared_context_server.auth.secrets import ensure_secrets
from shared_context_server.settings import Settings
bare = dict(api_key=None, admin_api_key=None, jwt_secret_key=None)
print("ready", flush=True)
sys.stdin.read()  # all begin together
started, _ = ensure_secrets(Settings(data_dir=Path(sys.argv[1]), **bare))
print(started.api_key.get_secret_value(), started.jwt_secret_key.get_secret_value())
"""


def test_processes_that_start_together_end_with_the_same_keys(tmp_path: Path) -> None:
    command = [sys.executable, "-c", START, str(tmp_path / "data")]
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    started = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(4)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    answers = {process.communicate(timeout=60)[0] for process in started}
    assert len(answers) == 1
    [api_key, jwt_secret_key] = answers.pop().split()
    written = read_secrets(tmp_path / "data" / "secrets.env")
    assert (written["API_KEY"], written["JWT_SECRET_KEY"]) == (api_key, jwt_secret_key)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_is_a_matter_of_configuration(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigurationError, match="DATA_DIR"):
        ensure_secrets(bare_settings(tmp_path / "data"))


def test_a_data_dir_that_is_a_file_is_a_matter_of_configuration(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(ConfigurationError, match="DATA_DIR"):
        ensure_secrets(bare_settings(tmp_path / "data"))


def test_a_stuck_lock_is_told_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "LOCK_TIMEOUT_S", 0.05)
    with (
        FileLock(tmp_path / ".secrets.env.lock"),
        pytest.raises(ConfigurationError, match="holds the lock"),
    ):
        ensure_secrets(bare_settings(tmp_path))


def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ConfigurationError, match="No space left"):
        ensure_secrets(bare_settings(tmp_path))
    assert [path.name for path in tmp_path.glob("*")] == [".secrets.env.lock"]


def test_previous_secrets_are_read_from_the_file_and_checked(tmp_path: Path) -> None:
    ensure_secrets(bare_settings(tmp_path))
    path = tmp_path / "secrets.env"
    path.write_text(path.read_text() + f"JWT_PREVIOUS_SECRET_KEYS={'a' * 32},{'b' * 40}\n")
    settings, _ = ensure_secrets(bare_settings(tmp_path))
    assert settings.previous_secrets == (b"a" * 32, b"b" * 40)
    path.write_text(path.read_text() + "JWT_PREVIOUS_SECRET_KEYS=short\n")
    with pytest.raises(ConfigurationError, match="JWT_PREVIOUS_SECRET_KEYS") as caught:
        ensure_secrets(bare_settings(tmp_path))
    assert "short" not in str(caught.value)
