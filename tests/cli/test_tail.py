"""`tail -f` follows sessions over restarts, on a server, on a data dir, and on a terminal."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from shared_context_server.cli.hub.calls import Call, Hub, call
from shared_context_server.cli.hub.options import HubOptions
from shared_context_server.cli.tail import Tail
from shared_context_server.settings import load_settings
from shared_context_server.storage import migrate_storage
from tests.cli.conftest import Serve
from tests.cli.programs import open_terminal
from tests.forked import ForkedProcess
from tests.remote.conftest import Lines

Do = Callable[..., dict[str, Any]]


@pytest.fixture
def do(env: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Do:
    """Call a tool as an agent, on the server that runs or on the data dir."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCS_DATA_DIR", env["DATA_DIR"])
    for name in ("SCS_URL", "SCS_API_KEY", "SCS_ADMIN_API_KEY", "SCS_AGENT_ID"):
        monkeypatch.delenv(name, raising=False)

    def run(tool: str, agent: str = "alice", **arguments: Any) -> dict[str, Any]:
        with HubOptions(as_=agent).open_hub() as hub:
            return call(hub, tool, **arguments)

    return run


@pytest.fixture
def tail(env: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Lines]]:
    started: list[Lines] = []

    def start(*arguments: str) -> Lines:
        command = ["tail", "-f", "--json", *arguments]
        lines = Lines(ForkedProcess(command, env, tmp_path, has_stdin=True))
        started.append(lines)
        return lines

    yield start
    for lines in started:
        lines.__exit__()


def say(do: Do, session: str, *numbers: int) -> None:
    for number in numbers:
        do("add_message", session_id=session, content=str(number))


def read(lines: Lines, count: int) -> list[int]:
    return [int(json.loads(lines.next())["content"]) for _ in range(count)]


def test_no_message_is_missed_or_repeated_over_a_killed_server(
    serve: Serve, do: Do, tail: Callable[..., Lines]
) -> None:
    with serve() as server:
        first, second = (do("create_session", purpose="p")["session_id"] for _ in range(2))
        say(do, first, 1, 2, 3)
        one, several, all_ = tail(first, "-n", "2"), tail(first, second, "-n", "1"), tail("-n", "9")
        assert read(one, 2) == [2, 3]
        assert read(several, 1) == [3]
        assert read(all_, 3) == [1, 2, 3]
        say(do, second, 4)
        say(do, first, 5)
        assert read(one, 1) == [5]
        assert read(several, 2) == read(all_, 2) == [4, 5]
        server.stop(signal.SIGKILL)
    say(do, second, 6)  # by a process that opens the data dir, while no server runs
    say(do, first, 7)
    with serve():  # on another port
        say(do, first, 8)
        assert read(one, 2) == [7, 8]
        assert read(several, 3) == read(all_, 3) == [6, 7, 8]
        do("close_session", session_id=first)
        code, left, told = one.end()
        assert (code, left) == (0, [])
        assert "answers again" in told
        assert "is closed" in told


def test_a_data_dir_is_followed_without_a_server(
    env: dict[str, str], do: Do, tail: Callable[..., Lines]
) -> None:
    migrate_storage(load_settings(data_dir=Path(env["DATA_DIR"])))
    session = do("create_session", purpose="p")["session_id"]
    say(do, session, 1)
    one, all_ = tail(session), tail("--sender", "alice")
    assert read(one, 1) == read(all_, 1) == [1]
    do("add_message", agent="bob", session_id=session, content="2")
    say(do, session, 3)
    assert read(one, 2) == [2, 3]
    assert read(all_, 1) == [3]
    all_.process.send_signal(signal.SIGINT)
    assert all_.end()[0] == 130
    do("delete_session", session_id=session)
    assert one.end()[0] == 3


class Until:
    """Keeps what is printed, and ends the tail at a text."""

    def __init__(self, last: str) -> None:
        self.texts: list[str] = []
        self._last = last

    def print(self, message: dict[str, Any]) -> None:
        self.texts.append(message["content"])
        if message["content"] == self._last:
            raise EOFError


class BusyHub:
    """A hub on which somebody else writes a message between any two batches of calls."""

    def __init__(self, hub: Hub, session_id: str) -> None:
        self._hub = hub
        self._session_id = session_id
        self.place, self.agent_id, self.follow = hub.place, hub.agent_id, hub.follow
        self.texts: list[str] = []

    def call_all(self, calls: Sequence[Call]) -> list[dict[str, Any]]:
        answers = self._hub.call_all(calls)
        self.texts.append(f"beside {len(self.texts)}")
        call(self._hub, "add_message", session_id=self._session_id, content=self.texts[-1])
        return answers


@pytest.mark.parametrize("named", [0, 1, 2])
def test_what_is_written_while_it_starts_is_printed_once(
    env: dict[str, str], do: Do, named: int
) -> None:
    migrate_storage(load_settings(data_dir=Path(env["DATA_DIR"])))
    session, other = (do("create_session", purpose="p")["session_id"] for _ in range(2))
    say(do, session, 1, 2)
    with HubOptions().open_hub() as hub:
        busy, printer = BusyHub(hub, session), Until("end")
        tail = Tail(busy, (session, other)[:named], (), printer)
        tail.print_newest(5)
        call(hub, "add_message", session_id=session, content="end")
        with pytest.raises(EOFError):
            tail.follow()
    # With one session, the last one is written behind the end: when the stream has been opened.
    beside = busy.texts[:-1] if named == 1 else busy.texts
    assert printer.texts == ["1", "2", *beside, "end"]


def test_a_terminal_shows_messages_as_they_come_and_nothing_steers_it(
    serve: Serve, do: Do, env: dict[str, str], tmp_path: Path
) -> None:
    with serve():
        session = do("create_session", purpose="p")["session_id"]
        do("add_message", session_id=session, content="before\x1b]0;owned\x07")
        with open_terminal("tail", "-f", session, env=env, cwd=tmp_path) as terminal:
            terminal.wait_for("before")
            options = {"visibility": "private", "recipients": ["operator"]}
            do("add_message", session_id=session, content="line one\nline two\x1b[2J", **options)
            terminal.wait_for(r"line one\s+line two\\u001b\[2J")
            assert "→ operator" in terminal.shown
            assert "[private]" in terminal.shown
            terminal.type("\x03")
            assert terminal.wait() == 130
            for steering in ("\x1b]", "\x1b[2J", "\x07"):
                assert steering not in terminal.shown
            assert "\x1b[1" in terminal.shown  # colours


def test_colours_are_left_out_where_they_are_not_wanted(
    serve: Serve, do: Do, env: dict[str, str], tmp_path: Path
) -> None:
    with serve():
        do("create_session", purpose="purpose " + 100 * "long")
        plain = env | {"NO_COLOR": "1"}
        with open_terminal("sessions", env=plain, cwd=tmp_path) as terminal:
            terminal.wait_for("purpose lo")
            assert terminal.wait() == 0
        assert not any(f"\x1b[{code}" in terminal.shown for code in range(30, 50))
        lines = terminal.shown.strip().splitlines()
        assert (
            len(lines) == 3
        )  # a heading, a session that is cut to the width, and what is left out
        assert lines[0].split()[0].endswith("session")
        assert lines[1].split()[2:4] == ["0", "0"]
        assert lines[1].rstrip().endswith("…")
