"""A server whose database file is removed or replaced while it runs."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest

from tests.cli.conftest import PATIENCE_S, Serve, ServerProcess
from tests.processes.test_load import headers_of
from tests.processes.test_workers import worker_pids


def database_of(server: ServerProcess) -> Path:
    return server.data_dir / "shared_context.db"


def write(server: ServerProcess) -> httpx.Response:
    return httpx.post(
        f"{server.url}/mcp/tool/create_session",
        json={"purpose": "p"},
        headers=headers_of(server, "alice"),
        timeout=PATIENCE_S,
    )


async def until_unready(server: ServerProcess) -> httpx.Response:
    async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient(base_url=server.url) as client:
        while True:
            answer = await client.get("/ready")
            if answer.status_code != 200:
                return answer


async def test_it_stops_acknowledging_and_says_why(serve: Serve) -> None:
    with serve() as server:
        assert write(server).status_code == 200
        database = database_of(server)
        copy = database.with_name("copy.db")
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as other:
            source.backup(other)
        copy.rename(database)
        refused = write(server)
        assert (refused.status_code, refused.json()["code"]) == (503, "UNAVAILABLE")
        assert "replaced" in refused.json()["error"]
        assert (await until_unready(server)).status_code == 503
        server.wait_for("has been replaced")
        assert server.stop() == 0
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM sessions").fetchone() == (1,)


@pytest.mark.parametrize("is_replaced", [False, True])
async def test_a_new_worker_takes_no_other_database(serve: Serve, is_replaced: bool) -> None:
    with serve("--workers", "2") as server:
        assert write(server).status_code == 200
        database = database_of(server)
        database.rename(database.with_name("aside.db"))
        if is_replaced:
            database.touch()
        psutil.Process(min(worker_pids(server))).send_signal(signal.SIGKILL)
        assert server.process.wait(PATIENCE_S) != 0  # nobody serves another database
        assert "has been removed or replaced" in server.stderr
    assert database.exists() == is_replaced
    assert not is_replaced or database.stat().st_size == 0
