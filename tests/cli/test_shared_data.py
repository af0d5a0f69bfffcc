"""Commands that read and write what agents share, on a running server and straight on a data dir."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shared_context_server import models
from shared_context_server.cli import memory, post, search, sessions, tasks
from shared_context_server.cli.fleet import rows
from shared_context_server.cli.hub.calls import call
from shared_context_server.cli.hub.options import HubOptions
from shared_context_server.services.search_request import SearchMode, SortOrder, Within
from shared_context_server.settings import load_settings
from shared_context_server.storage import migrate_storage
from tests.cli.conftest import make_env, make_serve
from tests.cli.programs import Program

HOSTILE = "red \x1b[31m\x1b]0;title\x07 \x9b2J \u202eback\ttab\nnext line"


@pytest.fixture(scope="module", params=["server", "data dir"])
def reached(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The environment of commands. On a data dir without a server there is only a database."""
    directory = tmp_path_factory.mktemp("reached")
    env = make_env(directory)
    env["SCS_DATA_DIR"] = env["DATA_DIR"]
    if request.param == "server":
        with make_serve(env, directory)():
            yield env
    else:
        migrate_storage(load_settings(data_dir=Path(env["DATA_DIR"])))
        yield env


@pytest.fixture
def program(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    reached: dict[str, str],
    tmp_path: Path,
) -> Program:
    monkeypatch.chdir(tmp_path)
    return Program(monkeypatch, capfd, reached)


def make_session(purpose: str = "Release 2.0", agent: str = "alice") -> str:
    """As an agent makes it; no command does."""
    with HubOptions(as_=agent).open_hub() as hub:
        made: str = call(hub, "create_session", purpose=purpose)["session_id"]
        return made


def test_messages_are_posted_listed_found_and_read(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session()
    assert program("post", session, "The", "parser", "is", "slow.").out.startswith("#1\t")
    stdin = io.TextIOWrapper(io.BytesIO(b"first\nsecond\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", stdin)
    assert program("post", session, "-", "-q", "--as", "bob").out == ""
    options = ("--to", "alice", "--visibility", "private", "--kind", "stop", "--metadata")
    private = program("post", session, "Stop.", *options, '{"reason": "schema"}', "--json")
    assert json.loads(private.out)["seq"] == 3
    lines = program("tail", session).out.splitlines()
    assert lines == [
        f"{session} #1 operator: The parser is slow.",
        f"{session} #2 bob: first ⏎ second",
        f"{session} #3 operator (private) [stop]: Stop.",
    ]
    [last] = map(json.loads, program("tail", "-n", "1", "--json").out.splitlines())
    assert (last["recipients"], last["sender_type"]) == (["alice"], "operator")
    assert last["metadata"] == {"reason": "schema", "type": "stop", "overseer": "stop"}
    assert program("tail", session, "--sender", "bob", "-n", "1").out.splitlines() == lines[1:2]
    [row] = [line for line in program("sessions").out.splitlines() if line.startswith(session)]
    assert row.split("\t")[1:3] == ["active", "3"]
    facts = dict(line.split("\t") for line in program("sessions", session).out.splitlines())
    assert (facts["purpose"], facts["created by"]) == ("Release 2.0", "alice")
    [found] = json.loads(program("search", "parsr", "slow", "--session", session, "--json").out)[
        "results"
    ]
    assert found["message"]["seq"] == 1
    assert program("search", "parser", "--session", session).out.split("\t")[1] == f"{session} #1"
    assert session in json.loads(program("sessions", "--json").out)["sessions"][0]["session_id"]


def test_the_audit_log_is_listed_exported_and_verified(program: Program, tmp_path: Path) -> None:
    sessions_of_alice = [make_session(f"Audited {number}") for number in range(2)]
    listed = program("audit", "list", "--event", "session_created", "--agent", "alice", "-n", "2")
    rows = [line.split("\t") for line in listed.out.splitlines()]
    assert [row[2:5] for row in rows] == [
        ["session_created", "alice", session_id] for session_id in reversed(sessions_of_alice)
    ]
    as_json = json.loads(program("audit", "list", "--session", sessions_of_alice[0], "--json").out)
    assert [entry["event_type"] for entry in as_json["entries"]] == ["session_created"]
    assert "hash" not in as_json["entries"][0]

    verified = program("audit", "verify")
    noted = verified.out.strip()
    assert (verified.code, len(noted)) == (0, 64)
    make_session()
    again = json.loads(program("audit", "verify", "--head", noted, "--json").out)
    assert (again["ok"], again["faults"]) == (True, [])
    assert again["entries"] == again["chain"]["head_id"] - again["chain"]["anchor_id"]
    other = program("audit", "verify", "--head", "0" * 64)
    assert (other.code, "written anew" in other.err) == (1, True)
    assert program("audit", "verify", "--head", "abc").code == 2

    whole, some, key = (str(tmp_path / name) for name in ("whole.jsonl", "some.jsonl", "key.pem"))
    Path(key).write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
    )
    exported = program("audit", "export", whole, "--sign", key)
    assert again["chain"]["head_hash"] in exported.err
    assert program("audit", "export", whole).code == 2  # it exists
    first, second, *_ = map(json.loads, Path(whole).read_text().splitlines())
    assert (first["record"], second["id"], len(second["hash"])) == ("audit_log", 1, 64)
    found = json.loads(program("verify", whole, "--json").out)
    assert (found["ok"], found["what"], found["count"]) == (True, "audit log", again["entries"])
    assert found["signed_by"] is not None
    assert program("audit", "export", some, "--agent", "alice").code == 0
    assert json.loads(program("verify", some, "--json").out)["count"] >= 2
    Path(some).write_text(Path(some).read_text().replace('"alice"', '"eve"', 1))
    changed = program("verify", some)
    assert (changed.code, changed.out, "Line 1 was changed" in changed.err) == (1, "", True)


def test_memory_is_written_by_version_and_read_as_it_was_written(
    program: Program, tmp_path: Path
) -> None:
    assert program("memory", "set", "build/a", '{"n": 1}').out == "1\n"
    assert program("memory", "set", "build/a", '{"m": 2}', "--mode", "merge").out == "2\n"
    assert json.loads(program("memory", "get", "build/a").out) == {"n": 1, "m": 2}
    stale = program("memory", "set", "build/a", "3", "--expected-version", "1")
    assert (stale.code, stale.out, stale.err.count("\n")) == (5, "", 1)
    file = tmp_path / "notes"
    file.write_text("12\nlines\n")
    assert program("memory", "set", "build/b", "--file", str(file), "--ttl", "60", "-q").out == ""
    assert program("memory", "get", "build/b").out == "12\nlines\n"
    assert program("memory", "set", "build/c", "--text", "5").out == "1\n"
    assert json.loads(program("memory", "get", "build/c", "--json").out)["value"] == "5"
    assert program("memory", "set", "build/d", "-5").out == "1\n"
    assert program("memory", "get", "build/d").out == "-5\n"
    keys = [line.split("\t")[0] for line in program("memory", "list", "build/").out.splitlines()]
    assert keys == ["build/a", "build/b", "build/c", "build/d"]
    assert program("memory", "list", "build/", "-n", "3").err.endswith("raise --limit.\n")
    private = ("--scope", "private", "--as", "carol")
    assert program("memory", "set", "mine", "x", *private).code == 0
    assert program("memory", "get", "mine", "--scope", "private").code == 3
    assert program("memory", "get", "mine", *private).out == "x"
    assert program("memory", "delete", "build/a").code == 0
    assert program("memory", "get", "build/a").code == 3


def test_tasks_are_added_listed_and_finished(program: Program) -> None:
    session = make_session()
    assert program("tasks", "add", session, "Write", "it").out == "1\tready\n"
    assert program("tasks", "add", session, "Ship it", "--after", "1").out == "2\tblocked\n"
    assert program("tasks", "done", session, "2").code == 5
    done = program("tasks", "done", session, "1", "--result", "merged", "--json")
    assert json.loads(done.out)["result"] == "merged"
    assert program("tasks", "done", session, "1").code == 5
    listed = program("tasks", "list", session, "--state", "ready").out
    assert listed.split("\t")[0] == "2"


def test_agents_are_listed_with_what_they_hold(program: Program) -> None:
    session = make_session()
    with HubOptions(as_="builder").open_hub() as hub:
        call(hub, "acquire_lease", name="deploy", session_id=session)
        call(hub, "set_status", text="deploys", state="working")
    [row] = [line for line in program("agents").out.splitlines() if line.startswith("builder\t")]
    cells = row.split("\t")
    assert (cells[1], cells[3], cells[6:]) == ("operator", "working", ["deploy", "deploys"])
    for arguments in ((), ("--session", session)):
        rows = [line.split("\t") for line in program("leases", *arguments).out.splitlines()]
        assert ["deploy", session, "builder"] in [row[:3] for row in rows]
    [seen] = [line for line in program("top").out.splitlines() if line.startswith("builder\t")]
    assert seen.split("\t")[1] == "working"
    assert "deploy" in seen.split("\t")[4]
    with HubOptions(as_="builder").open_hub() as hub:
        call(hub, "add_task", session_id=session, title="Ship it")
        call(hub, "claim_task", session_id=session, task_id=1)
        call(hub, "mark_read", session_id=session, seq=1)
    assert program("post", session, "Well?").code == 0
    [seen] = [line for line in program("top").out.splitlines() if line.startswith("builder\t")]
    assert seen.split("\t")[6:8] == ["1", "#1 Ship it"]
    assert json.loads(program("top", "--json", "--session", session).out)["agents"]


@pytest.mark.parametrize(
    "command, code, told",
    [
        ("sessions --data-dir /nowhere/data", 1, "serve --data-dir /nowhere/data"),
        ("post session_0000000000000000 text", 3, "scs sessions --status all"),
        ("sessions session_0000000000000000", 3, "no session"),
        ("tail session_0000000000000000", 3, "no session"),
        ("memory get nothing", 3, "memory list"),
        ("memory delete nothing", 3, "nothing"),
        ("memory set key", 2, "one value"),
        ("memory set key --as-json {", 2, "JSON"),
        ("memory set key --file /nowhere/file", 2, "/nowhere/file"),
        ("post session_0000000000000000 text --metadata 5", 2, "--metadata"),
        ("search", 2, "words"),
        ("search x --threshold 101", 2, "--threshold"),
        ("tail -n 1001", 2, "--lines"),
        ("top --interval 0", 2, "--interval"),
        ("agents --as spaced\u200b", 2, ""),
    ],
)
def test_what_cannot_be_done_is_one_line_and_a_code(
    program: Program, command: str, code: int, told: str
) -> None:
    answer = program(*command.split(" "))
    assert (answer.code, answer.out) == (code, ""), answer
    assert answer.err.startswith("shared-context-server: ")
    assert answer.err.count("\n") == 1
    assert told in answer.err


def test_no_text_of_an_agent_steers_the_terminal(program: Program) -> None:
    session = make_session(HOSTILE)
    with HubOptions(as_="mallory").open_hub() as hub:
        call(hub, "add_message", session_id=session, content=HOSTILE, metadata={"x": HOSTILE})
        call(hub, "set_memory", key="evil", value=HOSTILE, scope="shared", metadata={"x": HOSTILE})
        call(hub, "set_status", text=HOSTILE.replace("\n", " "))
        call(hub, "add_task", session_id=session, title=HOSTILE)
    for command in (
        *("sessions", f"sessions {session}", f"tail {session}", f"search red --session {session}"),
        *("agents", "top", f"tasks list {session}", "memory list", f"tail {session} --json"),
        *("sessions --json", "top --json", "search red --json", "memory get evil --json"),
    ):
        answer = program(*command.split())
        assert answer.code == 0
        assert "red" in answer.out or command == "memory list"
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(answer.out), command
        if "--json" not in command:
            assert not any(line.startswith("next line") for line in answer.out.splitlines())


def test_the_choices_of_options_are_those_of_the_tools() -> None:
    pairs: list[tuple[type[StrEnum], type[StrEnum]]] = [
        (post.Visibility, models.Visibility),
        (memory.Scope, models.MemoryScope),
        (memory.Mode, models.MemoryMode),
        (tasks.State, models.TaskState),
        (tasks.Outcome, models.TaskOutcome),
        (search.Within, Within),
        (search.SortOrder, SortOrder),
        (search.Mode, SearchMode),
    ]
    for ours, theirs in pairs:
        assert [one.value for one in ours] == [one.value for one in theirs]
    assert list(rows.ACTIVITIES) == [one.value for one in models.Activity]
    assert {one.value for one in sessions.WhichSessions} == {*models.SessionStatus, "all"}
