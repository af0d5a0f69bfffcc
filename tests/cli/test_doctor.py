"""`doctor`: what it finds in a sound installation, and in one with each kind of fault."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from shared_context_server.auth.secrets import ensure_secrets
from shared_context_server.cli.checks.data import check_database
from shared_context_server.remote.access import ADDRESS_FILE
from shared_context_server.search_index.folder import IndexFolder
from shared_context_server.settings import Settings, load_settings
from shared_context_server.storage import migrate_storage, open_storage
from tests.cli.conftest import Serve, make_env
from tests.cli.programs import Answer, Program, open_terminal
from tests.storage.builders import add_session, make_audit

GONE_PID = 2**22 + 1  # above the largest that the kernel gives out by default
DATABASE = "shared_context.db"


@pytest.fixture
def doctor(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Answer]:
    """Run it on a data dir with keys and an empty database, with further variables."""
    env = make_env(tmp_path) | {"SCS_HTTP_PORT": "0"}
    monkeypatch.chdir(tmp_path)
    program = Program(monkeypatch, capfd, env)
    settings, _ = ensure_secrets(load_settings(data_dir=tmp_path / "data"))
    migrate_storage(settings)

    def run(*arguments: str, **variables: str) -> Answer:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return program("doctor", *arguments)

    return run


def find(answer: Answer, level: str) -> list[tuple[str, str, str]]:
    """Subject, text and hint of the findings of a level, but for what this machine's time is like."""
    found = json.loads(answer.out)["findings"]
    return [
        (one["subject"], one["text"], one["hint"])
        for one in found
        if one["level"] == level and one["subject"] != "system time"
    ]


def test_nothing_is_wrong_with_a_sound_data_dir_and_nothing_is_changed(
    doctor: Callable[..., Answer], tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}
    answer = doctor("--json", "--full")
    assert find(answer, "warn") == find(answer, "fail") == []
    assert {subject for subject, _, _ in find(answer, "ok")} == {
        *("settings", "exposure", "keys", "data dir", "disk", "schema", "database"),
        *("counters", "search index", "audit log", "server", "processes", "clock"),
    }
    assert answer.code in (0, 6)  # 6 on a machine whose clock nothing synchronizes
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}
    assert after == before
    lines = doctor().out.splitlines()
    assert [len(line.split("\t")) for line in lines] == [4] * len(lines)
    assert not [line for line in doctor("-q").out.splitlines() if line.startswith("ok")]


def test_nothing_is_made_where_there_is_nothing_yet(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    program = Program(monkeypatch, capfd, make_env(tmp_path) | {"SCS_HTTP_PORT": "0"})
    answer = program("doctor", "--json")
    assert find(answer, "warn") == find(answer, "fail") == []
    assert list(tmp_path.iterdir()) == []


def damage(settings: Settings) -> None:
    """Overwrite pages of the database behind those of its schema and its pointers."""
    with (settings.data_dir / DATABASE).open("r+b") as file:
        file.seek(12_288)
        file.write(b"\xff" * 40_000)


def orphan(settings: Settings) -> None:
    with closing(sqlite3.connect(settings.data_dir / DATABASE)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("INSERT INTO participants VALUES ('session_0', 'a', 1, 1, 1)")
        connection.commit()


def note_server(text: str) -> Callable[[Settings], None]:
    return lambda settings: write(settings.data_dir / ADDRESS_FILE, text)


def write(path: Path, text: str) -> None:
    path.write_text(text)


def break_index(settings: Settings) -> None:
    folder = IndexFolder(settings.search_index_parent, settings.storage_url)
    folder.lock()
    folder.make_current(folder.make_generation())
    folder.unlock()


Fault = tuple[Callable[[Settings], object], str, str, str]
NO_SERVER = json.dumps({"url": "http://127.0.0.1:9", "pid": GONE_PID})
HANGING = json.dumps({"url": "http://127.0.0.1:9", "pid": os.getpid()})
FAULTS: dict[str, Fault] = {
    "secrets": (lambda s: s.secrets_path.chmod(0o644), "fail", "keys", "chmod 600"),
    "data dir": (lambda s: s.data_dir.chmod(0o777), "warn", "data dir", "chmod go-w"),
    "database mode": (
        *(lambda s: (s.data_dir / DATABASE).chmod(0o640), "warn", "database", "chmod 600"),
    ),
    "damage": (damage, "fail", "database", "scs restore"),
    "orphan": (orphan, "fail", "database", "scs restore"),
    "index": (break_index, "warn", "search index", "makes it anew"),
    "killed server": (note_server(NO_SERVER), "warn", "server", "Start it again"),
    "hanging server": (note_server(HANGING), "fail", "server", "See its log"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_data_is_found_with_what_to_do(
    doctor: Callable[..., Answer], tmp_path: Path, name: str
) -> None:
    break_it, level, subject, hint = FAULTS[name]
    break_it(load_settings(data_dir=tmp_path / "data"))
    answer = doctor("--json")
    found = find(answer, level)
    assert [one[0] for one in found] == [subject] * len(found) != []
    assert hint in found[0][2]
    assert answer.code == {"warn": 6, "fail": 1}[level]


@pytest.mark.parametrize(
    "variables, level, subject, told",
    [
        ({"SCS_HTTP_PROT": "1"}, "warn", "settings", "SCS_HTTP_PROT"),
        ({"SCS_POSTGRES_TIMEOUT": "5"}, "warn", "settings", "POSTGRES_TIMEOUT"),
        ({"SCS_MAX_MCP_SESSIONS": "5"}, "warn", "settings", "stateless"),
        ({"SCS_JWT_SECRET_KEY": 40 * "a"}, "warn", "keys", "JWT_SECRET_KEY"),
        ({"SCS_JWT_SECRET_KEY": "short"}, "fail", "settings", "JWT_SECRET_KEY"),
        ({"SCS_AUTH_ENABLED": "false"}, "warn", "exposure", "no key"),
        (
            {"SCS_AUTH_ENABLED": "false", "SCS_HTTP_HOST": "0.0.0.0"},
            *("fail", "exposure", "AUTH_ENABLED"),
        ),
        ({"SCS_DATABASE_URL": "sqlite:///:memory:"}, "warn", "database", "memory"),
        ({"SCS_DATABASE_URL": "mysql://x"}, "fail", "schema", "mysql"),
        ({"SCS_SEARCH_INDEX": "false"}, "warn", "search index", "SEARCH_INDEX"),
    ],
    ids=str,
)
def test_a_setting_that_means_nothing_or_harm_is_found(
    doctor: Callable[..., Answer], variables: dict[str, str], level: str, subject: str, told: str
) -> None:
    found = find(doctor("--json", **variables), level)
    assert [one[0] for one in found] == [subject]
    assert told in found[0][1]
    assert found[0][2]


class SomethingElse(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def something_else() -> Iterator[int]:
    with http.server.HTTPServer(("127.0.0.1", 0), SomethingElse) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        yield other.server_port
        other.shutdown()
        thread.join()


def test_another_program_on_the_port_is_found(doctor: Callable[..., Answer]) -> None:
    with something_else() as port:
        [(subject, text, hint)] = find(doctor("--json", SCS_HTTP_PORT=str(port)), "warn")
    assert (subject, str(port) in text, "--port" in hint) == ("server", True, True)


def test_a_server_is_found_by_its_data_dir_and_a_second_one_by_the_port(
    serve: Serve, doctor: Callable[..., Answer], tmp_path: Path
) -> None:
    with serve() as server:
        port = server.url.rsplit(":", 1)[1]
        answer = doctor("--json", SCS_HTTP_PORT=port)
        assert find(answer, "warn") == find(answer, "fail") == []
        texts = {subject: text for subject, text, _ in find(answer, "ok")}
        assert server.url in texts["server"]
        assert str(server.process.pid) in texts["processes"]
        elsewhere = str(tmp_path / "elsewhere")
        [(subject, text, _)] = find(doctor("--json", "--data-dir", elsewhere), "warn")
        assert (subject, "second server" in text) == ("server", True)


def test_a_terminal_gets_a_line_for_each_finding_and_its_hint_below(
    doctor: Callable[..., Answer], env: dict[str, str], tmp_path: Path
) -> None:
    note_server(NO_SERVER)(load_settings(data_dir=tmp_path / "data"))
    with open_terminal("doctor", env=env | {"HTTP_PORT": "0"}, cwd=tmp_path) as terminal:
        terminal.wait_for(r"warn.*server.*has ended[^→]*→ It was killed")
        terminal.wait_for("clock daemon")
        assert terminal.wait() == 6


def test_a_changed_audit_log_is_found(doctor: Callable[..., Answer], tmp_path: Path) -> None:
    async def add_entries() -> None:
        async with open_storage(load_settings(data_dir=tmp_path / "data")) as store:
            for number in range(3):
                await store.audit.add(make_audit(str(number)))

    asyncio.run(add_entries())
    assert ("audit log", "The hash chain is whole: 3 entries.", "") in find(doctor("--json"), "ok")
    with closing(sqlite3.connect(tmp_path / "data" / DATABASE)) as connection, connection:
        connection.execute("UPDATE audit_log SET agent_id = 'eve' WHERE id = 2")
    answer = doctor("--json")
    [(subject, text, hint)] = find(answer, "fail")
    assert (answer.code, subject) == (1, "audit log")
    assert "Entry 2: changed" in text
    assert "scs audit verify" in hint


def test_wrong_counters_are_named_and_repaired_only_when_asked(
    doctor: Callable[..., Answer], tmp_path: Path
) -> None:
    async def add() -> None:
        async with open_storage(load_settings(data_dir=tmp_path / "data")) as store:
            await add_session(store, "s")

    asyncio.run(add())
    with closing(sqlite3.connect(tmp_path / "data" / DATABASE)) as connection, connection:
        connection.execute("UPDATE usage SET sessions = 3, bytes = bytes - 1")
    for _ in range(2):
        answer = doctor("--json")
        [(subject, text, hint)] = find(answer, "warn")
        assert (subject, answer.code) == ("counters", 6)
        assert "agent alice in session s: sessions 2 too many, bytes 1 too few" in text
        assert "scs doctor --repair" in hint
    repaired = {subject: text for subject, text, _ in find(doctor("--json", "--repair"), "ok")}
    assert "were set right: agent alice in session s" in repaired["counters"]
    assert find(doctor("--json"), "warn") == []


def test_a_database_that_is_gone_is_not_taken_for_one_that_was_never_there(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path)
    [found] = check_database(settings, is_thorough=False, repairs=False, has_server=False)
    assert (found.level, "the first start makes it" in found.text) == ("ok", True)
    folder = IndexFolder(settings.search_index_parent, settings.storage_url)
    assert folder.lock()
    folder.make_current(folder.make_generation())
    folder.unlock()
    [found] = check_database(settings, is_thorough=False, repairs=False, has_server=False)
    assert (found.level, "any more" in found.text) == ("warn", True)
