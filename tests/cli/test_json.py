"""Commands of those who run a server print one JSON document with --json, and nothing else."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import make_env
from tests.cli.programs import Program


@pytest.fixture
def program(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Program:
    monkeypatch.chdir(tmp_path)
    return Program(monkeypatch, capfd, make_env(tmp_path))


def read(program: Program, *arguments: str, code: int = 0) -> dict[str, Any]:
    answer = program(*arguments, "--json")
    assert answer.code == code, answer
    document: dict[str, Any] = json.loads(answer.out)
    return document


def test_keys_are_made_and_listed(program: Program) -> None:
    made = read(program, "keys", "create", "--agent-id", "ci", "--permissions", "read")
    [listed] = read(program, "keys", "list")["keys"]
    key = made.pop("key")
    assert listed == made
    assert (made["agent_id"], made["permissions"], made["revoked_at"]) == ("ci", ["read"], None)
    assert key not in program("keys", "list", "--json").out


def test_a_database_is_migrated_copied_and_restored(program: Program, tmp_path: Path) -> None:
    before = read(program, "migrate", "--check", code=1)
    assert before["current"] == 0
    assert len(read(program, "migrate")["applied"]) == before["latest"]
    assert read(program, "migrate") == {"applied": []}
    copy = tmp_path / "copy.db"
    assert read(program, "backup", str(copy)) == {"file": str(copy), "bytes": copy.stat().st_size}
    restored = read(program, "restore", str(copy))
    assert Path(restored["old_database"]).exists()
    assert restored["schema"] == {"current": before["latest"], "latest": before["latest"]}
    quiet = program("backup", str(copy), "--force", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    assert read(program, "status", "--port", "1", code=1)["is_ready"] is False


def test_data_is_exported_and_imported(program: Program, tmp_path: Path) -> None:
    read(program, "keys", "create", "--agent-id", "ci")
    dump = str(tmp_path / "all.jsonl")
    exported = read(program, "export", dump)
    assert (exported["file"], exported["records"]["api_key"]) == (dump, 1)
    assert read(program, "import", dump, "--dry-run")["records"] == exported["records"]
    other = ("--data-dir", str(tmp_path / "other"))
    imported = read(program, "import", dump, *other)
    assert imported["is_equal"]
    assert {one["kind"] for one in imported["kinds"] if one["destination"]} >= {"api_key"}
    mixed = program("export", "-", "--json")
    assert (mixed.code, mixed.out) == (2, "")


def test_an_older_schema_is_used_by_no_command_that_only_looks(
    program: Program, tmp_path: Path
) -> None:
    latest = len(read(program, "migrate")["applied"])
    with closing(sqlite3.connect(tmp_path / "data/shared_context.db")) as connection:
        connection.execute("DELETE FROM schema_migrations WHERE number = ?", (latest,))
        connection.commit()
    refused = program("sessions")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert f"schema {latest - 1} of {latest}" in refused.err
    assert "scs migrate" in refused.err
    assert read(program, "migrate", "--check", code=1)["current"] == latest - 1
    found = json.loads(program("doctor", "--json").out)["findings"]
    assert [one["level"] for one in found if one["subject"] == "schema"] == ["warn"]
