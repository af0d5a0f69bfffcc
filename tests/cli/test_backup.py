"""`backup` and `restore`: the database as a file, beside servers that run, and back."""

from __future__ import annotations

import shlex
import sqlite3
import stat
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import COMMAND, PATIENCE_S, Run, Serve, ServerProcess
from tests.cli.test_moving import count_messages, database_of, make_store, read_dump


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A data dir with something of everything in its store."""
    return make_store(tmp_path / "source")


@pytest.fixture
def copy(scs: Run, source: Path, tmp_path: Path) -> Path:
    """A backup of it."""
    answer = scs("backup", "copy.db", DATA_DIR=str(source))
    assert answer.returncode == 0, answer.stderr
    return tmp_path / "copy.db"


def post(server: ServerProcess, tool: str, **arguments: object) -> httpx.Response:
    key = server.secrets["API_KEY"]
    return httpx.post(
        f"{server.url}/mcp/tool/{tool}", json=arguments, headers={"X-API-Key": key}, timeout=30
    )


def leftovers(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if path.name.endswith(".partial")]


def test_a_backup_is_whole_private_and_one_file(copy: Path) -> None:
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert leftovers(copy.parent) == []
    assert not copy.with_name("copy.db-wal").exists()
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_backup_ends_beside_writes_and_has_what_was_acknowledged_before(
    scs: Run, serve: Serve, tmp_path: Path
) -> None:
    with serve() as server:
        session_id = post(server, "create_session", purpose="p").json()["session_id"]
        done = threading.Event()
        written: list[int] = []

        def write() -> None:
            while not done.is_set():
                answer = post(server, "add_message", session_id=session_id, content="x" * 1000)
                written.append(answer.json()["seq"])

        writer = threading.Thread(target=write)
        writer.start()
        try:
            while len(written) < 50:
                done.wait(0.01)
            before = len(written)
            answer = scs("backup", "copy.db")
        finally:
            done.set()
            writer.join(PATIENCE_S)
        assert answer.returncode == 0, answer.stderr
        assert before <= count_messages(tmp_path / "copy.db") <= len(written)


def test_a_name_that_is_taken_is_not_overwritten(scs: Run, source: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken.db"
    taken.write_text("mine")
    refused = scs("backup", "taken.db", DATA_DIR=str(source))
    assert refused.returncode == 2
    assert "exists" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert taken.read_text() == "mine"
    assert scs("backup", "taken.db", "--force", DATA_DIR=str(source)).returncode == 0
    assert count_messages(taken) > 0


def test_there_has_to_be_a_database_and_none_is_made(scs: Run, tmp_path: Path) -> None:
    refused = scs("backup", "copy.db", DATA_DIR=str(tmp_path / "nothing"))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "no database" in refused.stderr
    assert not (tmp_path / "nothing").exists()
    assert not (tmp_path / "copy.db").exists()


def test_a_damaged_database_is_not_called_a_backup(scs: Run, source: Path, tmp_path: Path) -> None:
    content = bytearray(database_of(source).read_bytes())
    content[4096:] = b"\x5a" * (len(content) - 4096)
    database_of(source).write_bytes(content)
    failed = scs("backup", "copy.db", DATA_DIR=str(source))
    assert failed.returncode != 0
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "copy.db").exists()
    assert leftovers(tmp_path) == []


def test_a_backup_that_finds_no_room_leaves_nothing(
    env: dict[str, str], source: Path, tmp_path: Path
) -> None:
    copying = f"ulimit -f 100; exec {shlex.join(COMMAND)} backup copies/copy.db"
    (tmp_path / "copies").mkdir()
    failed = subprocess.run(
        ["sh", "-c", copying],
        env=env | {"DATA_DIR": str(source)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert failed.returncode == 1, failed.stderr
    assert list((tmp_path / "copies").iterdir()) == []


def test_what_is_restored_is_what_was_backed_up_and_the_old_one_is_kept(
    scs: Run, source: Path, copy: Path, tmp_path: Path
) -> None:
    target = make_store(tmp_path / "target", messages=2000)
    had = count_messages(database_of(target))
    answer = scs("restore", "copy.db", DATA_DIR=str(target))
    assert answer.returncode == 0, answer.stderr
    assert read_dump(scs, target) == read_dump(scs, source)
    assert stat.S_IMODE(database_of(target).stat().st_mode) == 0o600
    (aside,) = target.glob("shared_context.db.before-*Z")
    assert aside.name in answer.stderr
    assert count_messages(aside) == had
    assert copy.exists()


def test_a_data_dir_without_a_database_can_be_restored(
    scs: Run, source: Path, copy: Path, tmp_path: Path
) -> None:
    assert scs("restore", "copy.db", DATA_DIR=str(tmp_path / "new")).returncode == 0
    assert read_dump(scs, tmp_path / "new") == read_dump(scs, source)


def test_nothing_is_restored_under_a_server_that_runs(scs: Run, serve: Serve, copy: Path) -> None:
    with serve() as server:
        post(server, "create_session", purpose="kept")
        refused = scs("restore", "copy.db")
        assert refused.returncode == 2
        assert "stop" in refused.stderr
        assert post(server, "create_session", purpose="kept too").status_code == 200
        assert server.stop() == 0
        assert not list(server.data_dir.glob("*.before-*"))
        answer = scs("restore", "copy.db")
        assert answer.returncode == 0, answer.stderr
    with serve() as server:
        assert httpx.get(f"{server.url}/ready").status_code == 200
        assert count_messages(database_of(server.data_dir)) == count_messages(copy)


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (a)")
        connection.commit()


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "INSERT INTO schema_migrations SELECT max(number) + 1, 'later', 'x', 0"
            " FROM schema_migrations"
        )
        connection.commit()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def text(path: Path) -> None:
    path.write_text("not a database\n" * 500)


def with_a_log(path: Path) -> None:
    path.with_name(path.name + "-wal").write_bytes(b"x")


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (foreign, "another program|differs from"),
        (newer, "newer"),
        (truncated, "valid|damaged"),
        (text, "valid"),
        (with_a_log, "log next to it"),
        (Path.unlink, "not a file"),
    ],
)
def test_what_is_no_backup_of_ours_changes_nothing(
    scs: Run, source: Path, copy: Path, tmp_path: Path, spoil: object, reason: str
) -> None:
    if spoil is foreign:
        copy.unlink()
    spoil(copy)  # type: ignore[operator]
    before = read_dump(scs, source)
    refused = scs("restore", "copy.db", DATA_DIR=str(source))
    assert refused.returncode == 2, refused.stderr
    assert "Traceback" not in refused.stderr
    assert any(part in refused.stderr for part in reason.split("|")), refused.stderr
    assert refused.stderr.count("\n") == 1
    assert read_dump(scs, source) == before
    assert not list(source.glob("*.before-*"))
    assert leftovers(source) == []
