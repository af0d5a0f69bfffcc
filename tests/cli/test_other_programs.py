"""Every command refuses the database of another program, in one line."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from shared_context_server.embed import McpServerAdapter, create_sdk_server
from tests.cli.conftest import Run
from tests.embed.conftest import initialize

REFUSED = "tables of another program"


@pytest.fixture
def app_database(tmp_path: Path) -> Path:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE users (id INTEGER)")
    return path


@pytest.mark.parametrize(
    "command",
    [
        "serve",
        "serve --transport stdio",
        "token --agent-id a",
        "keys list",
        "migrate",
        "migrate --check",
        "export dump",
        "import dump",
    ],
)
def test_a_command_refuses_the_database_of_another_program(
    scs: Run, tmp_path: Path, app_database: Path, command: str
) -> None:
    if command == "import dump":
        scs("migrate")
        scs("export", "dump")
    before = app_database.read_bytes()
    answer = scs(*command.split(), SCS_DATABASE_URL=f"sqlite:///{app_database}", HTTP_PORT="0")
    assert answer.returncode == 2, answer.stderr
    assert REFUSED in answer.stderr.splitlines()[-1]
    assert str(app_database) in answer.stderr
    assert "Traceback" not in answer.stderr
    assert app_database.read_bytes() == before
    assert [path.name for path in tmp_path.glob("app.db*")] == ["app.db"]


async def test_an_embedded_server_refuses_it(tmp_path: Path, app_database: Path) -> None:
    entry = create_sdk_server(
        agent_id="alice", data_dir=tmp_path / "data", database_url=f"sqlite:///{app_database}"
    )
    before = app_database.read_bytes()
    async with McpServerAdapter(entry) as adapter:
        answer = await adapter.handle_message(initialize())
    assert answer is not None
    assert REFUSED in answer["error"]["message"]
    assert app_database.read_bytes() == before
