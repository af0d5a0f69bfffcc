"""Which server or data dir a command uses, with which key, and where keys are not sent."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared_context_server.cli.failures import CommandFailed
from shared_context_server.cli.hub.place import DATABASE_FILE, Place, find_place
from shared_context_server.remote.access import ADDRESS_FILE, DEFAULT_URL, SECRETS_FILE

REMOTE = "https://elsewhere.example"
Find = Callable[..., Place]


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default one, with the keys of a server."""
    for name in ("URL", "API_KEY", "ADMIN_API_KEY", "AGENT_ID", "DATA_DIR", "DATABASE_URL"):
        monkeypatch.delenv(f"SCS_{name}", raising=False)
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    directory = tmp_path / "shared-context-server"
    directory.mkdir()
    (directory / SECRETS_FILE).write_text("API_KEY=ordinary\nADMIN_API_KEY=admin\n")
    return directory


@pytest.fixture
def listening() -> Iterator[str]:
    """The URL of something that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def find(url: str | None = None, data_dir: Path | None = None, agent: str | None = None) -> Place:
    return find_place(url, None if data_dir is None else str(data_dir), agent)


def note_address(directory: Path, url: str) -> None:
    (directory / ADDRESS_FILE).write_text(json.dumps({"url": url, "pid": 1}))


def test_a_server_that_answers_comes_before_the_database(data_dir: Path, listening: str) -> None:
    place = find()
    assert place.access is not None
    assert place.access.url == DEFAULT_URL  # there is neither
    (data_dir / DATABASE_FILE).touch()
    assert find() == Place(data_dir, None, "operator")
    note_address(data_dir, listening)
    place = find(agent="bob")
    assert place.access is not None
    assert place.access.url == listening
    assert place.access.headers == {
        "X-API-Key": "admin",
        "X-Agent-ID": "bob",
        "X-Agent-Type": "operator",
    }
    note_address(data_dir, "http://127.0.0.1:9")  # of a server that was killed
    assert find().access is None


def test_a_url_that_is_given_is_called_whatever_else_there_is(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data_dir / DATABASE_FILE).touch()
    for place in (find("http://127.0.0.1:9/"), find("http://127.0.0.1:9")):
        assert place.access is not None
        assert place.access.url == "http://127.0.0.1:9"
    monkeypatch.setenv("SCS_URL", "http://localhost:9")
    place = find()
    assert place.access is not None
    assert place.access.url == "http://localhost:9"
    with pytest.raises(CommandFailed, match="ftp"):
        find("ftp://127.0.0.1")


def test_a_database_that_is_named_is_opened(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCS_DATABASE_URL", "postgresql://somewhere/x")
    assert find().access is None


def test_keys_of_files_are_sent_to_this_machine_or_for_a_named_data_dir_only(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(place: Place) -> str | None:
        assert place.access is not None
        return place.access.headers.get("X-API-Key")

    assert key(find("http://127.0.0.1:9")) == "admin"
    assert key(find(REMOTE)) is None
    assert key(find(REMOTE, data_dir)) == "admin"
    Path(".env").write_text("API_KEY=of-the-project\n")
    assert key(find("http://127.0.0.1:9")) == "of-the-project"  # as `serve` there takes it
    assert key(find(REMOTE)) is None
    monkeypatch.setenv("SCS_API_KEY", "given")
    monkeypatch.setenv("SCS_AGENT_ID", "me")
    place = find(REMOTE)
    assert place.access is not None
    assert place.access.headers == {"X-API-Key": "given", "X-Agent-ID": "me"}


def test_a_project_cannot_send_commands_to_a_server_of_its_own(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a `.env` that names a data dir, in which is the address of a server elsewhere."""
    trap = tmp_path / "project/data"
    trap.mkdir()
    Path(".env").write_text(f"DATA_DIR={trap}\n")
    monkeypatch.setenv("SCS_API_KEY", "given")
    with socket.create_server(("127.0.0.2", 0)) as elsewhere:  # an address that is none of ours
        url = f"http://127.0.0.2:{elsewhere.getsockname()[1]}"
        note_address(trap, url)
        with pytest.raises(CommandFailed, match="not this machine"):
            find()
        found = find(data_dir=trap)  # somebody has named it
    assert found.access is not None
    assert found.access.url == url
