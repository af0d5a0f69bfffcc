"""`import --from-shared-context`: the SQLite file of the older shared-context server."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from shared_context_server.cli.moving import ProgressBar
from shared_context_server.cli.older_server import MAX_ROW_BYTES, open_older_server
from shared_context_server.errors import ConfigurationError, CopyError
from shared_context_server.services.moving import Moved, move
from shared_context_server.settings import Settings
from shared_context_server.storage import open_copier
from tests.cli.conftest import Run
from tests.cli.older_file import ALPHA, AT, BETA, insert, make_older_file
from tests.postgres import DatabaseServer

Change = Callable[[sqlite3.Connection], object]


@pytest.fixture
def older(tmp_path: Path) -> Path:
    return make_older_file(tmp_path / "chat_history.db")


def change(older: Path, *changes: Change) -> None:
    with closing(sqlite3.connect(older)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for each in changes:
            each(connection)


def run(statement: str, *values: Any) -> Change:
    return lambda connection: connection.execute(statement, values)


def import_older(older: Path, data_dir: Path, **store: Any) -> tuple[Moved, dict[str, int]]:
    """Import in this process; return also what was remarked, by its text."""

    async def copy() -> tuple[Moved, dict[str, int]]:
        settings = Settings(**{"data_dir": data_dir, "database_url": None, **store})
        with open_older_server(older) as source, ProgressBar() as bar:
            await source.read_all(bar)
            async with open_copier(settings, read_only=False) as copier:
                moved = await move(source, copier, bar)
            remarks = source.remarks.items()
            return moved, {f"{kind.name}: {text}": each.count for (kind, text), each in remarks}

    return asyncio.run(copy())


def records(scs: Run, data_dir: Path) -> dict[str, list[dict[str, Any]]]:
    """What a dump of the store has, by kind."""
    answer = scs("export", "-", DATA_DIR=str(data_dir))
    assert answer.returncode == 0, answer.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for line in answer.stdout.splitlines()[1:-1]:
        record = json.loads(line)
        found.setdefault(record.pop("record"), []).append(record)
    return found


def test_everything_arrives_with_its_ids_times_and_order(
    scs: Run, older: Path, tmp_path: Path
) -> None:
    answer = scs("import", "--from-shared-context", str(older))
    assert answer.returncode == 0, answer.stderr
    assert "DIFFERS" not in answer.stdout
    found = records(scs, tmp_path / "data")
    alpha, beta = found["session"]
    assert (alpha["id"], alpha["purpose"], alpha["access"]) == (ALPHA, "Plan", "open")
    assert (alpha["status"], alpha["metadata"], alpha["closed_at"]) == ("active", {"a": 1}, None)
    assert (beta["status"], beta["created_at"]) == ("closed", "2025-08-12T12:00:00.250000Z")
    assert beta["closed_at"] > "2026"  # CURRENT_TIMESTAMP of its trigger
    assert [(m["id"], m["session_id"], m["seq"]) for m in found["message"]] == [
        (1, ALPHA, 1),
        (2, BETA, 1),
        (3, ALPHA, 2),
        (4, ALPHA, 3),
    ]
    third = found["message"][2]
    assert (third["visibility"], third["parent_message_id"]) == ("private", 1)
    assert (third["sender"], third["sender_type"]) == ("alice", "claude")
    assert (third["content"], third["metadata"]) == ("Text 3", {"n": [1, None]})
    assert third["created_at"] == "2025-08-12T12:00:03.250000Z"
    seen, note, plan = found["memory"]
    assert (seen["session_id"], seen["value"]) == (None, 2)
    assert (note["owner"], note["value"], plan["value"]) == ("alice", "plain words", {"steps": 2})
    assert (plan["updated_at"], plan["version"]) == ("2025-08-12T12:00:01.000000Z", 1)
    assert plan["expires_at"] > "2100"
    (alice,) = found["agent"]
    assert (alice["agent_id"], alice["agent_type"], alice["is_around"]) == (
        "alice",
        "claude",
        False,
    )
    assert (alice["first_seen"], alice["last_seen"]) == (
        beta["created_at"],
        found["message"][3]["created_at"],
    )
    made, kept = found["audit"]
    assert (made["event_type"], made["session_id"], made["details"]) == (
        "session_created",
        None,
        {},
    )
    # Admins are not shown the names of private memory, so this key neither.
    assert kept["details"] == {
        "key": "plan",
        "session_scoped": True,
        "action": "set",
        "scope": "private",
    }
    assert {c["table"]: c["last_id"] for c in found["counter"]} == {"audit_log": 2, "messages": 4}
    assert "memory: 1 × not taken: another one has the same name and is newer" in answer.stderr
    again = scs("import", "--from-shared-context", str(older))
    assert again.returncode == 0, again.stderr
    assert " 0 written" in again.stderr


def test_a_dry_run_counts_and_writes_nothing(scs: Run, older: Path, tmp_path: Path) -> None:
    answer = scs("import", "--from-shared-context", str(older), "--dry-run")
    assert answer.returncode == 0, answer.stderr
    counts = dict(line.split() for line in answer.stdout.splitlines())
    assert counts == dict(
        zip(("session", "message", "memory", "audit", "agent"), "24321", strict=True)
    )
    assert "Nothing was written." in answer.stderr
    assert not (tmp_path / "data").exists()


def test_a_dump_has_a_dry_run_too(scs: Run, older: Path, tmp_path: Path) -> None:
    assert scs("import", "--from-shared-context", str(older)).returncode == 0
    assert scs("export", "dump").returncode == 0
    answer = scs("import", "dump", "--dry-run", DATA_DIR=str(tmp_path / "copy"))
    assert dict(line.split() for line in answer.stdout.splitlines())["message"] == "4"
    assert not (tmp_path / "copy").exists()


def test_a_store_with_other_data_is_refused(scs: Run, older: Path) -> None:
    assert scs("keys", "create", "--agent-id", "ci").returncode == 0
    answer = scs("import", "--from-shared-context", str(older))
    assert answer.returncode == 1
    assert "The destination has" in answer.stderr


@pytest.mark.parametrize("arguments", [[], ["dump", "--from-shared-context", "x.db"]])
def test_exactly_one_file_is_named(scs: Run, arguments: list[str]) -> None:
    answer = scs("import", *arguments)
    assert answer.returncode == 2
    assert "Name one file" in answer.stderr


def test_what_was_written_meanwhile_is_imported_by_a_second_run(
    older: Path, tmp_path: Path
) -> None:
    import_older(older, tmp_path / "data")
    new = {"session_id": ALPHA, "sender": "bob", "content": "More", "timestamp": AT}
    change(older, lambda connection: insert(connection, "messages", **new))
    moved, _ = import_older(older, tmp_path / "data")
    assert moved.written == 2  # the message, and the agent that has come
    assert moved.is_equal


def test_postgresql_takes_it_too(older: Path, tmp_path: Path, postgres: DatabaseServer) -> None:
    """Which cannot store U+0000."""
    new = {"session_id": ALPHA, "sender": "bob", "content": "a\0b", "metadata": '{"k": "\\u0000"}'}
    change(older, lambda connection: insert(connection, "messages", **new, timestamp=AT))
    with postgres.new_database(is_migrated=False) as store:
        moved, _ = import_older(older, tmp_path / "data", **store)
        assert (moved.is_equal, moved.replaced_nul) == (True, 1)
        again, _ = import_older(older, tmp_path / "data", **store)
    assert (again.is_equal, again.written) == (True, 0)


def test_the_first_versions_files_have_no_type_of_the_sender(
    scs: Run, older: Path, tmp_path: Path
) -> None:
    change(older, run("ALTER TABLE messages DROP COLUMN sender_type"))
    import_older(older, tmp_path / "data")
    assert {m["sender_type"] for m in records(scs, tmp_path / "data")["message"]} == {"generic"}


def test_what_does_not_fit_is_left_out_and_said(scs: Run, older: Path, tmp_path: Path) -> None:
    deep = "[" * 5000 + "]" * 5000
    message = {"session_id": ALPHA, "sender": "bob", "content": "x", "timestamp": AT}
    memory = {"agent_id": "bob", "value": "1", "created_at": AT, "updated_at": AT}
    audit = {"event_type": "x", "agent_id": "bob"}

    def add(connection: sqlite3.Connection) -> None:
        for wrong in (
            {"session_id": "session_gone"},
            {"sender": "b\nob"},
            {"timestamp": "yesterday"},
            {"content": b"\x00\xff"},
            {"visibility": None},
            {"metadata": "[1]"},
            {"metadata": f'{{"a": {deep}}}'},
            {"metadata": '{"a": NaN}'},
            {"parent_message_id": 2},  # of the other session
            {"content": "not \udc80 text".encode(errors="surrogateescape")},
        ):
            insert(connection, "messages", **{**message, **wrong})
        connection.execute("UPDATE messages SET content = CAST(content AS TEXT) WHERE id = 14")
        insert(connection, "messages", **message, id=-1)
        insert(connection, "agent_memory", **memory, key="k\0")
        insert(
            connection, "agent_memory", **{**memory, "value": '"' + "x" * 300_000 + '"'}, key="k"
        )
        insert(connection, "agent_memory", **{**memory, "value": deep}, key="deep")
        insert(connection, "audit_log", **audit, timestamp=float("1e300"))
        insert(connection, "sessions", id="s", purpose="long " * 200, created_by="bob")

    change(older, add)
    moved, remarks = import_older(older, tmp_path / "data")
    assert moved.is_equal
    assert remarks == {
        "session: the purpose was cut after 500 characters": 1,
        "message: not taken: the id is not a positive integer": 1,
        "message: not taken: its session is not in the file, or was not taken": 1,
        "message: not taken: sender is not a valid name": 1,
        "message: not taken: timestamp is not a time": 1,
        "message: not taken: the content is empty or too long": 1,
        "message: not taken: its visibility is unknown": 1,
        "message: its metadata was left out: too large, or not a JSON object": 3,
        "message: the message that it replies to is not in its session": 1,
        "memory: not taken: another one has the same name and is newer": 1,
        "memory: not taken: key is not a valid name": 1,
        "memory: not taken: the value is too large or too deep": 1,
        "audit: not taken: timestamp is not a time": 1,
    }
    found = records(scs, tmp_path / "data")
    assert found["message"][-1]["content"] == "not \N{REPLACEMENT CHARACTER} text"
    assert found["memory"][1]["value"] == deep  # what is no JSON is text
    of_alpha = [m["seq"] for m in found["message"] if m["session_id"] == ALPHA]
    assert of_alpha == list(range(1, 1 + len(of_alpha)))


@pytest.mark.parametrize(
    "changes, says",
    [
        ([run("DROP TABLE agent_memory")], "no table agent_memory"),
        ([run("ALTER TABLE audit_log DROP COLUMN result")], "no table audit_log"),
        (
            [
                run("DROP TABLE audit_log"),
                run("CREATE VIEW audit_log AS SELECT * FROM messages"),
            ],
            "no table audit_log",
        ),
        ([run("CREATE TABLE schema_migrations (n)")], "database of this program"),
        (
            [run("UPDATE messages SET metadata = zeroblob(?)", MAX_ROW_BYTES + 1)],
            "cannot be read: string or blob too big",
        ),
    ],
)
def test_a_file_of_another_shape_is_refused_in_one_line(
    older: Path, tmp_path: Path, changes: list[Change], says: str
) -> None:
    change(older, *changes)
    with pytest.raises((ConfigurationError, CopyError), match=says) as raised:
        import_older(older, tmp_path / "data")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "data").exists()


def test_a_damaged_file_is_refused_in_one_line(older: Path, tmp_path: Path) -> None:
    whole = older.read_bytes()
    for name, damaged in {
        "empty": b"",
        "text": b"no database at all" * 100,
        "cut": whole[: len(whole) // 2],
        "schema": whole.replace(b"AUTOINCREMENT", b"AUTOINCR\xb4MENT"),
        "garbled": whole[:4096] + b"\xaa" * 8192 + whole[4096 + 8192 :],
    }.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises((ConfigurationError, CopyError)) as raised:
            import_older(tmp_path / name, tmp_path / "data")
        assert "\n" not in str(raised.value)
    with pytest.raises(ConfigurationError, match="is not a file"):
        import_older(tmp_path / "nowhere", tmp_path / "data")
    assert not (tmp_path / "data").exists()
