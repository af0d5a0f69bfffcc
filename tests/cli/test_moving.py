"""`export`, `import` and `migrate --from`: a whole store on its way."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import sqlite3
import stat
import subprocess
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from shared_context_server.settings import Settings
from shared_context_server.storage import open_storage
from tests.cli.conftest import COMMAND, PATIENCE_S, STOP_S, Run, Serve
from tests.forked import ForkedProcess
from tests.storage.builders import add_message, add_session
from tests.storage.filled import fill

FEW = 2_000
MANY = 8_000  # messages: copying them takes many transactions


def database_of(data_dir: Path) -> Path:
    return data_dir / "shared_context.db"


def url_of(data_dir: Path) -> str:
    return f"sqlite://{database_of(data_dir)}"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A data dir with something of everything in its store."""
    return make_store(tmp_path / "source")


def make_store(data_dir: Path, *, messages: int = 0) -> Path:
    async def make() -> None:
        async with open_storage(Settings(data_dir=data_dir, database_url=None)) as store:
            await fill(store)
            await add_session(store, "long")
            for _ in range(messages // FEW):
                await asyncio.gather(*(add_message(store, "long") for _ in range(FEW)))

    asyncio.run(make())
    return data_dir


def read_dump(scs: Run, data_dir: Path) -> list[str]:
    """The lines of the store's dump, without the header, which tells when it was made."""
    answer = scs("export", "-", DATA_DIR=str(data_dir))
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.splitlines()[1:]


def count_messages(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM messages").fetchone()
    return int(count)


# Export and import


@pytest.mark.parametrize("name", ["dump.jsonl", "dump.jsonl.gz"])
def test_what_was_exported_can_be_imported(
    scs: Run, source: Path, tmp_path: Path, name: str
) -> None:
    exported = scs("export", name, DATA_DIR=str(source))
    assert exported.returncode == 0, exported.stderr
    assert exported.stdout == ""
    assert (tmp_path / name).read_bytes().startswith(b"\x1f\x8b") == name.endswith(".gz")
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    imported = scs("import", name, DATA_DIR=str(tmp_path / "copy"))
    assert imported.returncode == 0, imported.stderr
    assert "DIFFERS" not in imported.stdout
    assert read_dump(scs, tmp_path / "copy") == read_dump(scs, source)
    again = scs("import", name, DATA_DIR=str(tmp_path / "copy"))
    assert again.returncode == 0
    assert " 0 written" in again.stderr


def test_a_dump_goes_through_a_pipe(
    scs: Run, source: Path, tmp_path: Path, env: dict[str, str]
) -> None:
    exporting = subprocess.run(
        [*COMMAND, "export", "-"],
        env=env | {"DATA_DIR": str(source)},
        stdout=subprocess.PIPE,
        timeout=PATIENCE_S,
        check=True,
    )
    importing = subprocess.run(
        [*COMMAND, "import", "-"],
        env=env | {"DATA_DIR": str(tmp_path / "copy")},
        input=exporting.stdout,
        capture_output=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert b"equal" in importing.stdout
    assert read_dump(scs, tmp_path / "copy") == read_dump(scs, source)


def test_an_export_replaces_no_file_unasked(scs: Run, source: Path, tmp_path: Path) -> None:
    (tmp_path / "dump").write_text("mine")
    refused = scs("export", "dump", DATA_DIR=str(source))
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert (tmp_path / "dump").read_text() == "mine"
    assert scs("export", "dump", "--force", DATA_DIR=str(source)).returncode == 0
    assert (tmp_path / "dump").read_text() != "mine"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".dump")] == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_disk_that_is_full_is_told_in_a_line(source: Path, env: dict[str, str]) -> None:
    with Path("/dev/full").open("wb") as full:
        answer = subprocess.run(
            [*COMMAND, "export", "-"],
            env=env | {"DATA_DIR": str(source)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert answer.returncode == 1
    assert answer.stderr.startswith("shared-context-server: standard output cannot be written: ")
    assert len(answer.stderr.splitlines()) == 1


def test_there_must_be_something_to_export(scs: Run, tmp_path: Path) -> None:
    answer = scs("export", "dump")
    assert answer.returncode == 2
    assert "no database" in answer.stderr
    assert not (tmp_path / "dump").exists()
    assert not (tmp_path / "data").exists()


def test_a_file_that_is_not_there_cannot_be_imported(scs: Run) -> None:
    answer = scs("import", "nowhere.jsonl")
    assert answer.returncode == 2
    assert "nowhere.jsonl cannot be read" in answer.stderr


def test_nothing_is_imported_of_a_damaged_dump(scs: Run, source: Path, tmp_path: Path) -> None:
    scs("export", "dump", DATA_DIR=str(source))
    whole = (tmp_path / "dump").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.gz").write_bytes(gzip.compress(whole)[:-9])
    (tmp_path / "altered").write_bytes(whole.replace(b"hello", b"hullo", 1))
    (tmp_path / "newer").write_bytes(whole.replace(b'"version":1', b'"version":2', 1))
    for name, says in {
        "cut": "cut off",
        "cut.gz": "cut off or altered",
        "altered": "counts or checksums do not match for: message",
        "newer": "version 2",
    }.items():
        answer = scs("import", name)
        assert answer.returncode == 1
        assert says in answer.stderr
        assert "Nothing was imported." in answer.stderr
        assert "Traceback" not in answer.stderr
        checked = scs("verify", name)
        assert checked.returncode == 1
        assert says in checked.stderr
        assert "imported" not in checked.stderr
    assert not (tmp_path / "data").exists()


def test_a_store_with_other_data_is_not_imported_into(
    scs: Run, source: Path, tmp_path: Path
) -> None:
    scs("export", "dump", DATA_DIR=str(source))
    assert scs("keys", "create", "--agent-id", "ci").returncode == 0
    answer = scs("import", "dump")
    assert answer.returncode == 1
    assert "The destination has" in answer.stderr
    assert count_messages(database_of(tmp_path / "data")) == 0


# From one database to another


def test_migrating_copies_and_compares(scs: Run, source: Path, tmp_path: Path) -> None:
    arguments = ("migrate", "--from", url_of(source), "--to", url_of(tmp_path / "copy"))
    answer = scs(*arguments)
    assert answer.returncode == 0, answer.stderr
    table = {line.split()[0]: line.split()[1:] for line in answer.stdout.splitlines()}
    assert table.pop("kind") == ["source", "destination", "checksum"]
    for ours, theirs, _, verdict in table.values():
        assert (ours, verdict) == (theirs, "equal")
    assert table["message"][0] == "13"
    assert read_dump(scs, tmp_path / "copy") == read_dump(scs, source)
    assert " 0 written" in scs(*arguments).stderr


def test_migrating_goes_to_the_configured_database_by_itself(
    scs: Run, source: Path, tmp_path: Path
) -> None:
    assert scs("migrate", "--from", url_of(source)).returncode == 0
    assert read_dump(scs, tmp_path / "data") == read_dump(scs, source)


@pytest.mark.parametrize("command", ["import", "migrate"])
def test_what_was_killed_is_completed_by_running_it_again(
    scs: Run, env: dict[str, str], tmp_path: Path, command: str
) -> None:
    source = make_store(tmp_path / "source", messages=MANY)
    scs("export", "dump", DATA_DIR=str(source))
    scs("migrate")
    destination = database_of(tmp_path / "data")
    arguments = ["import", "dump"] if command == "import" else ["migrate", "--from", url_of(source)]
    running = ForkedProcess(arguments, env | {"SQLITE_BUSY_TIMEOUT_MS": "60000"}, tmp_path)
    try:
        with closing(sqlite3.connect(destination, timeout=PATIENCE_S)) as connection:
            hold_when_begun(connection)
            running.kill()  # it waits for the lock, or is about to
            assert running.wait(STOP_S) == -9
            connection.rollback()
    finally:
        running.kill()
        running.wait(STOP_S)
        running.stdout.close()
        running.stderr.close()
    assert 0 < count_messages(destination) < MANY
    answer = scs(*arguments)
    assert answer.returncode == 0, answer.stderr
    assert read_dump(scs, tmp_path / "data") == read_dump(scs, source)


def hold_when_begun(connection: sqlite3.Connection) -> None:
    """Return with the write lock, once some messages are there."""
    connection.isolation_level = None
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        connection.execute("BEGIN IMMEDIATE")
        (count,) = connection.execute("SELECT count(*) FROM messages").fetchone()
        if count:
            return
        connection.execute("ROLLBACK")
    raise AssertionError("nothing was copied")


def test_a_moved_server_knows_its_agents(serve: Serve, scs: Run, tmp_path: Path) -> None:
    with serve() as server:
        key = scs("keys", "create", "--agent-id", "ci").stdout.strip()
        token = scs("token", "--agent-id", "alice").stdout.strip()
        headers = {"Authorization": f"Bearer {token}"}
        made = call(server.url, headers, "create_session", purpose="x")
        write = {"session_id": made["session_id"], "content": "once", "idempotency_key": "k"}
        first = call(server.url, headers, "add_message", **write)
        leased = call(server.url, headers, "acquire_lease", name="deploy", ttl_seconds=3600)
        server.stop()
    shutil.copytree(tmp_path / "data", tmp_path / "old")
    database_of(tmp_path / "data").unlink()
    assert scs("migrate", "--from", url_of(tmp_path / "old")).returncode == 0
    with serve() as server:
        again = call(server.url, headers, "add_message", **write)
        assert again == first | {"duplicate": True}
        assert call(server.url, {"X-API-Key": key}, "list_sessions")["sessions"]
        renewed = call(server.url, headers, "acquire_lease", name="deploy")
        assert renewed["fencing_token"] == leased["fencing_token"]


def call(url: str, headers: dict[str, str], tool: str, **arguments: object) -> dict[str, object]:
    answer = httpx.post(f"{url}/mcp/tool/{tool}", headers=headers, json=arguments)
    assert answer.status_code == 200, answer.text
    body: dict[str, object] = answer.json()
    return body


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--to", "sqlite:///x.db"], "--to needs --from"),
        (["--from", "sqlite:///x.db", "--check"], "--check cannot be combined"),
        (["--from", "sqlite:////tmp/x.db", "--to", "sqlite:////tmp/x.db"], "the same database"),
        (["--from", "sqlite:////nowhere/at/all.db"], "no database to copy from"),
        (["--from", "oracle://user:hunter2@there/db"], "DATABASE_URL"),
    ],
)
def test_a_wrong_command_line_is_refused(scs: Run, arguments: list[str], says: str) -> None:
    answer = scs("migrate", *arguments)
    assert answer.returncode == 2
    assert says in answer.stderr
    assert "hunter2" not in answer.stdout + answer.stderr


def test_a_source_with_an_older_schema_is_refused(scs: Run, source: Path) -> None:
    with closing(sqlite3.connect(database_of(source))) as connection, connection:
        connection.execute("DELETE FROM schema_migrations WHERE number > 1")
    answer = scs("export", "dump", DATA_DIR=str(source))
    assert answer.returncode == 2
    assert "schema 1 of" in answer.stderr
