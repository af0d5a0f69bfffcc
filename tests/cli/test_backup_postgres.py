"""`backup` and `restore` on PostgreSQL: from a server with traffic to a server on another database."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import PATIENCE_S, Run, Serve, ServerProcess
from tests.postgres import DatabaseServer

PASSWORD = "a-password-that-nobody-else-sees"
KEYS = {
    "API_KEY": "backup-api-key-0123456789",
    "ADMIN_API_KEY": "backup-admin-key-0123456789",
    "JWT_SECRET_KEY": "backup-jwt-secret-0123456789abcdef",
}


@contextmanager
def new_database(postgres: DatabaseServer) -> Iterator[str]:
    """The URL, with a password, of an empty database without a schema."""
    with postgres.new_database(is_migrated=False) as store:
        url: str = store.get("postgres_listen_url", store["database_url"])
        yield url.replace("postgres@", f"postgres:{PASSWORD}@")


def call(server: ServerProcess, tool: str, **arguments: object) -> httpx.Response:
    return httpx.post(
        f"{server.url}/mcp/tool/{tool}",
        json=arguments,
        headers={"X-API-Key": KEYS["API_KEY"]},
        timeout=PATIENCE_S,
    )


class Traffic:
    """Adds messages, one after the other, while the block runs."""

    def __init__(self, server: ServerProcess, session_id: str) -> None:
        self._server = server
        self._session_id = session_id
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.seqs: list[int] = []

    def _write(self) -> None:
        while not self._is_over.is_set():
            content = f"written while it was copied {len(self.seqs)}"
            answer = call(self._server, "add_message", session_id=self._session_id, content=content)
            self.seqs.append(answer.json()["seq"])

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        self._thread.join(PATIENCE_S)


def test_a_lost_database_is_restored_up_to_the_backup(
    scs: Run, serve: Serve, postgres: DatabaseServer, tmp_path: Path
) -> None:
    said = ""
    with new_database(postgres) as lost:
        with serve(DATABASE_URL=lost, **KEYS) as server:
            session_id = call(server, "create_session", purpose="disaster").json()["session_id"]
            call(server, "add_message", session_id=session_id, content="the lighthouse is red")
            call(server, "set_memory", key="k", value={"n": 1}, session_id=session_id)
            with Traffic(server, session_id) as traffic:
                while len(traffic.seqs) < 5:
                    traffic._is_over.wait(0.01)
                before = traffic.seqs[-1]
                answer = scs("backup", "copy", DATABASE_URL=lost)
            assert answer.returncode == 0, answer.stderr
            said += answer.stderr
            later = call(server, "add_message", session_id=session_id, content="after the backup")
            assert server.stop() == 0
        said += server.stderr
    copy = tmp_path / "copy"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600

    with new_database(postgres) as empty:
        answer = scs("restore", "copy", DATABASE_URL=empty)
        assert answer.returncode == 0, answer.stderr
        said += answer.stderr
        with serve(DATABASE_URL=empty, **KEYS) as server:
            read = call(server, "get_messages", session_id=session_id, after_seq=0, limit=1000)
            seqs = [message["seq"] for message in read.json()["messages"]]
            assert seqs == list(range(1, len(seqs) + 1))
            assert before <= len(seqs) < later.json()["seq"]
            lost_cursor = later.json()["seq"]
            answered = call(server, "get_messages", session_id=session_id, after_seq=lost_cursor)
            assert answered.json()["code"] == "CURSOR_LOST"
            added = call(server, "add_message", session_id=session_id, content="goes on")
            assert added.json()["seq"] == len(seqs) + 1
            found = call(server, "search_context", session_id=session_id, query="lighthuose red")
            assert found.json()["results"][0]["message"]["content"] == "the lighthouse is red"
            kept = call(server, "get_memory", key="k", session_id=session_id)
            assert kept.json()["value"] == {"n": 1}

            refused = scs("restore", "copy", DATABASE_URL=empty)
            assert refused.returncode == 2
            assert "not empty" in refused.stderr
            assert len(refused.stderr.splitlines()) == 1
            read = call(server, "get_messages", session_id=session_id, limit=1)
            assert read.json()["messages"][0]["content"] == "goes on"
            assert server.stop() == 0
        said += refused.stderr + server.stderr
    assert PASSWORD not in said


@pytest.mark.parametrize("spoil", ["cut", "altered", "foreign"])
def test_a_file_that_is_no_whole_backup_leaves_the_database_empty(
    scs: Run, postgres: DatabaseServer, tmp_path: Path, spoil: str
) -> None:
    copy = tmp_path / "copy"
    with new_database(postgres) as url:
        assert scs("migrate", DATABASE_URL=url).returncode == 0
        assert scs("keys", "create", "--agent-id", "a", DATABASE_URL=url, **KEYS).returncode == 0
        assert scs("backup", "copy", DATABASE_URL=url).returncode == 0
        taken = scs("backup", "copy", DATABASE_URL=url)
        assert (taken.returncode, "exists" in taken.stderr) == (2, True)
    content = bytearray(copy.read_bytes())
    if spoil == "cut":
        del content[-20:]
    elif spoil == "altered":
        content[len(content) // 2] ^= 0xFF
    else:
        content[:] = b"SQLite format 3\0" * 100
    copy.write_bytes(content)
    with new_database(postgres) as url:
        failed = scs("restore", "copy", DATABASE_URL=url)
        assert failed.returncode == 1, failed.stderr
        assert len(failed.stderr.splitlines()) == 1, failed.stderr
        assert scs("migrate", "--check", DATABASE_URL=url).stdout.startswith("schema 0")
