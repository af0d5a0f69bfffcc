"""The file by which programs on the machine find the server of a data dir."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from shared_context_server.cli.options import ServerOptions
from shared_context_server.cli.running import find_url, published_address
from shared_context_server.remote.access import ADDRESS_FILE, AccessError, find_access
from shared_context_server.settings import Settings


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SCS_URL", "SCS_API_KEY", "SCS_AGENT_ID", "SCS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("bare_environment")
def test_a_server_is_found_by_its_data_dir_while_it_runs(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, http_host="::")
    path = tmp_path / ADDRESS_FILE
    with published_address(settings, 8001):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert json.loads(path.read_text())["pid"] == os.getpid()
        found = find_access(data_dir=str(tmp_path))
        assert (found.url, found.is_guess) == ("http://[::1]:8001", False)
        with published_address(settings, 8002):  # the server that takes over
            assert find_access(data_dir=str(tmp_path)).url == "http://[::1]:8002"
    assert not path.exists()
    assert find_access(data_dir=str(tmp_path)).is_guess


def test_commands_ask_the_server_that_runs_unless_an_address_is_given(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    with published_address(settings, 8001):
        assert find_url(ServerOptions(), settings) == "http://127.0.0.1:8001"
        given = ServerOptions(port=8003)
        assert find_url(given, Settings(data_dir=tmp_path, http_port=8003)).endswith(":8003")
    assert find_url(ServerOptions(), settings) == "http://127.0.0.1:23456"


def test_the_file_of_a_server_that_started_later_stays(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    path = tmp_path / ADDRESS_FILE
    with published_address(settings, 8001):
        path.write_text("of another server")
    assert path.read_text() == "of another server"


def test_a_server_runs_without_the_file_where_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "taken" / ADDRESS_FILE).mkdir(parents=True)
    for data_dir in (tmp_path / "taken", tmp_path / "missing"):
        with published_address(Settings(data_dir=data_dir), 8001):
            assert not (data_dir / ADDRESS_FILE).is_file()
    assert not (tmp_path / "missing").exists()


@pytest.mark.usefixtures("bare_environment")
def test_the_key_of_the_default_data_dir_is_sent_to_this_machine_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    data_dir = tmp_path / "shared-context-server"
    data_dir.mkdir()
    (data_dir / "secrets.env").write_text("# keys\nAPI_KEY=the-key\nADMIN_API_KEY=another\n")
    key = {"X-API-Key": "the-key"}
    assert find_access().headers == key
    assert find_access("http://127.0.0.1:8001").headers == key
    assert find_access("https://elsewhere.example").headers == {}
    assert find_access("https://elsewhere.example", str(data_dir)).headers == key
    for lookalike in ("http://127.0.0.1.elsewhere.example", "http://localhost.elsewhere.example"):
        assert find_access(lookalike).headers == {}


@pytest.mark.usefixtures("bare_environment")
def test_an_edited_secrets_file_is_read_as_the_server_reads_it(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.env"
    secrets.write_text("export API_KEY='the key'  # mine\n")
    assert find_access(data_dir=str(tmp_path)).headers == {"X-API-Key": "the key"}
    secrets.write_text("SCS_API_KEY=prefixed\nAPI_KEY=not\n")
    assert find_access(data_dir=str(tmp_path)).headers == {"X-API-Key": "prefixed"}
    secrets.write_bytes(b"\xff")
    with pytest.raises(AccessError, match="cannot be read"):
        find_access(data_dir=str(tmp_path))
    with pytest.raises(AccessError, match="X-Agent-ID"):
        find_access("http://127.0.0.1:1", str(tmp_path / "none"), "a\r\nX-Evil: 1")
