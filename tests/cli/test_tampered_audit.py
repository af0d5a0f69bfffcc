"""An audit log that somebody has written into past the server: what `audit verify` and `doctor` say."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from shared_context_server import cli
from shared_context_server.cli.checks.data import check_database
from shared_context_server.settings import Settings
from shared_context_server.storage import open_storage
from shared_context_server.storage.sqlite.engine.connections import database_path
from tests.storage.builders import make_audit

ENTRIES = 4
CHANGES = {
    "details of another type": "details = '[1]'",
    "details that are no JSON": "details = 'not json'",
    "details too deep": f"details = '{'[' * 5000}{']' * 5000}'",
    "details as bytes": "details = x'ff00'",
    "details with spaces": "details = '{ }'",
    "details with a name twice": """details = '{"a":1,"a":2}'""",
    "a time out of range": "created_at = 9223372036854775807",
    "a time before all": "created_at = -9000000000000000000",
    "an agent as bytes": "agent_id = x'ff'",
    "a hash as bytes": "hash = x'00ff'",
}


@pytest.fixture
def log(tmp_path: Path) -> Settings:
    async def add_entries() -> None:
        async with open_storage(settings) as store:
            for number in range(ENTRIES):
                await store.audit.add(make_audit(str(number)))

    settings = Settings(data_dir=tmp_path)
    asyncio.run(add_entries())
    return settings


def write(settings: Settings, sql: str) -> None:
    with closing(sqlite3.connect(database_path(settings))) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(sql)


def verify(settings: Settings) -> int | None:
    words = ["audit", "verify", "--data-dir", str(settings.data_dir)]
    code: int | None = cli.app(words, result_action="return_value")
    return code


def ask_doctor(settings: Settings) -> tuple[str, str]:
    *_, found = check_database(settings, is_thorough=False, repairs=False, has_server=False)
    return found.level, found.text


@pytest.mark.parametrize("change", CHANGES)
def test_an_entry_that_was_changed_is_named_whatever_it_holds(
    log: Settings, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    write(log, f"UPDATE audit_log SET {CHANGES[change]} WHERE id = 2")
    assert verify(log) == 1
    told = capsys.readouterr().err
    assert "Entry 2:" in told or "Entries 2 to 3:" in told
    level, text = ask_doctor(log)
    assert (level, "Entry 2:" in text or "Entries 2 to 3:" in text) == ("fail", True)


def test_an_entry_added_at_the_end_without_a_hash_is_told_before_it_is_chained(
    log: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(log) == 0
    write(
        log,
        "INSERT INTO audit_log (created_at, event_type, agent_id, details)"
        " VALUES (1700000000000000, 'key_created', 'forged', '{}')",
    )
    assert verify(log) == 1
    assert f"from entry {ENTRIES + 1} on" in capsys.readouterr().err
    level, text = ask_doctor(log)
    assert (level, f"from entry {ENTRIES + 1} on" in text) == ("warn", True)
