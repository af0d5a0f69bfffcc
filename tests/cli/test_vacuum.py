"""`scs vacuum`: the space of what was deleted, by hand, beside servers and without."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from shared_context_server.settings import Settings
from shared_context_server.storage import inspect_storage, open_storage
from shared_context_server.storage.sqlite import inspection
from tests.cli.conftest import Run, Serve
from tests.cli.test_moving import database_of
from tests.postgres import DatabaseServer
from tests.storage.builders import add_message, add_session, allow, make_audit

DELETED = 3_000  # messages of 1,000 characters


def make_holes(data_dir: Path) -> int:
    """A store from which much was deleted; its size in bytes."""

    async def make() -> None:
        async with open_storage(Settings(data_dir=data_dir, database_url=None)) as store:
            for name in ("deleted", "kept"):
                await add_session(store, name)
            await asyncio.gather(
                *(add_message(store, "deleted", content="x" * 1000) for _ in range(DELETED)),
                *(add_message(store, "kept") for _ in range(10)),
            )
            await store.sessions.delete("deleted", allow, make_audit())

    asyncio.run(make())
    return database_of(data_dir).stat().st_size


def test_the_file_shrinks_beside_a_server(scs: Run, serve: Serve, tmp_path: Path) -> None:
    size = make_holes(tmp_path / "data")
    with serve() as server:
        answer = scs("vacuum")
        assert answer.returncode == 0, answer.stderr
        before, after = map(int, re.findall(r"(\d+) bytes before, (\d+) after", answer.stdout)[0])
        assert before >= size
        assert after < size / 4
        key = {"X-API-Key": server.secrets["ADMIN_API_KEY"]}
        read = httpx.post(
            f"{server.url}/mcp/tool/get_messages", json={"session_id": "kept"}, headers=key
        )
        assert read.json()["total_count"] == 10
        assert server.stop() == 0
    assert database_of(tmp_path / "data").stat().st_size == after


def test_a_file_of_an_older_version_is_written_anew_once_nobody_uses_it(
    scs: Run, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_holes(tmp_path / "data")
    database = database_of(tmp_path / "data")
    with closing(sqlite3.connect(database)) as connection:
        # As files were made before.
        for statement in ("PRAGMA auto_vacuum = NONE", "VACUUM", "CREATE TABLE gone (a)"):
            connection.execute(statement)
        for statement in ("INSERT INTO gone VALUES (zeroblob(2000000))", "DROP TABLE gone"):
            connection.execute(statement)
        connection.commit()
    monkeypatch.setattr(inspection, "WORTHWHILE_BYTES", 1_000_000)
    (wasted,) = inspect_storage(
        Settings(data_dir=tmp_path / "data", database_url=None), is_thorough=False
    ).problems
    assert "scs vacuum" in wasted.hint
    with serve() as server:
        refused = scs("vacuum")
        assert refused.returncode == 2
        assert "older version" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        assert server.stop() == 0
    assert scs("vacuum", "--json").returncode == 0
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_on_postgresql_it_is_said_that_autovacuum_does_it(
    scs: Run, postgres: DatabaseServer, tmp_path: Path
) -> None:
    with postgres.new_database() as store:
        answer = scs("vacuum", DATABASE_URL=store["database_url"])
        assert answer.returncode == 0, answer.stderr
        assert "autovacuum" in answer.stderr
        as_json = scs("vacuum", "--json", DATABASE_URL=store["database_url"])
        assert json.loads(as_json.stdout)["after"] > 0
    missing = scs("vacuum", DATA_DIR=str(tmp_path / "nothing"))
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "no database" in missing.stderr
