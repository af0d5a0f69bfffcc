"""What `scs watch` and `scs wait` print, what they survive, and how they end."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared_context_server.remote import exits
from shared_context_server.storage import open_storage
from tests.cli.conftest import PATIENCE_S, make_env, make_serve
from tests.remote.conftest import Hub, Lines
from tests.settings import make_settings
from tests.storage.builders import add_message, at, make_audit

REPORT = (
    "import json, sys; json.dump(sys.argv[1:], open('ran', 'a')); open('ran', 'a').write('\\n')"
)


@pytest.fixture(scope="module")
def closed(hub: Hub) -> str:
    """A session in which everything has been said, so that watching it ends."""
    session = hub.session()
    hub.say(session, "first\n\x1b[2J\u202eline")
    hub.say(session, "of alice", agent="alice")
    hub.say(session, "to @alice", agent="carol")
    hub.say(session, "for alice", visibility="private", recipients=["alice"])
    hub.say(session, "x" * 3000, metadata={"kind": "long"})
    hub.call("close_session", "bob", session_id=session)
    return session


def seqs(lines: str) -> list[int]:
    return [int(line.split("#")[1].split()[0]) for line in lines.splitlines()]


@pytest.mark.parametrize(
    "arguments, found",
    [
        ([], [1, 3, 4, 5]),
        (["--include-own"], [1, 2, 3, 4, 5]),
        (["--mentions-me"], [3, 4]),
        (["--sender", "carol", "--sender", "dave"], [3]),
        (["--since", "3"], [4, 5]),
        (["--since", "cursor"], [1, 3, 4, 5]),
        (["--once"], [1]),
        (["--since", "now"], []),
    ],
)
def test_wanted_messages_are_printed_one_a_line_until_the_session_is_closed(
    hub: Hub, closed: str, arguments: list[str], found: list[int]
) -> None:
    since = [] if "--since" in arguments else ["--since", "0"]
    answer = hub.run("watch", closed, *since, *arguments)
    assert answer.returncode == exits.DONE
    assert seqs(answer.stdout) == found


def test_a_line_is_bounded_and_has_no_control_characters(hub: Hub, closed: str) -> None:
    first, _, private, long = hub.run("watch", closed, "--since", "0").stdout.splitlines()
    assert first == rf"{closed} #1 bob: first ⏎ \u001b[2J\u202eline"
    assert private == f"{closed} #4 bob (private): for alice"
    assert long.endswith(f"{'x' * 1000} … (3000 characters)")
    short = hub.run("watch", closed, "--since", "4", "--max-chars", "5").stdout
    assert short == f"{closed} #5 bob: xxxxx … (3000 characters)\n"


def test_json_lines_have_the_message_and_say_what_was_cut(hub: Hub, closed: str) -> None:
    lines = hub.run("watch", closed, "--since", "0", "--json").stdout.splitlines()
    first, *_, long = map(json.loads, lines)
    assert first["content"] == "first\n\x1b[2J\u202eline"
    assert first["truncated"] is False
    assert (long["seq"], long["metadata"], long["truncated"]) == (5, {"kind": "long"}, True)
    assert all(line.isascii() and line.isprintable() for line in lines)


def remove_all(hub: Hub, session_id: str, *, more: int = 0) -> int:
    """Add `more` messages, and remove all as MESSAGE_RETENTION_DAYS does; return how many there were."""

    async def remove() -> int:
        async with open_storage(make_settings(Path(hub.env["DATA_DIR"]))) as store:
            for _ in range(more):
                await add_message(store, session_id)
            await store.expiry.remove_some(session_id, at(1e10), lambda *_: make_audit())
            return (await store.sessions.get(session_id)).last_seq

    return asyncio.run(remove())


@pytest.mark.parametrize(
    "arguments, removed",
    [
        (["watch", "--since", "1", "--json"], "2 to 4"),
        (["wait", "--since", "cursor", "--json"], "up to 4"),
        (["watch", "--since", "now"], None),
        (["watch", "--since", "4"], None),
    ],
)
@pytest.mark.parametrize("more", [0, 1])
def test_removed_messages_are_told_on_stderr_before_those_that_follow(
    hub: Hub, arguments: list[str], removed: str | None, more: int
) -> None:
    session = hub.session()
    for content in ("one", "two"):
        hub.say(session, content)
    assert remove_all(hub, session, more=2) == 4
    for _ in range(more):
        hub.say(session, "next")
    hub.call("close_session", "bob", session_id=session)
    answer = hub.run(arguments[0], session, *arguments[1:])
    told = [line for line in answer.stderr.splitlines() if "removed" in line]
    line = f"Messages {removed} of {session} were removed (MESSAGE_RETENTION_DAYS)."
    assert told == ([] if removed is None else [f"shared-context-server: {line}"])
    if "--json" in arguments:
        found = [json.loads(line)["seq"] for line in answer.stdout.splitlines()]
        assert found == [5] * more


def test_messages_come_once_over_a_restart_on_another_port(tmp_path: Path) -> None:
    env = make_env(tmp_path)
    serve = make_serve(env, tmp_path)
    with serve() as server:
        hub = Hub(server, env, tmp_path)
        session = hub.session()
        lines = Lines(hub.start("watch", session))
        everything = Lines(hub.start("watch"))
        try:
            # The first that it sees: it begins at some time after its start.
            for watcher in (lines, everything):
                first = None
                while first is None:
                    hub.say(session, "are you there?")
                    try:
                        first = watcher.next(0.2)
                    except queue.Empty:
                        continue
            seen = hub.say(session, "before")
            for watcher in (lines, everything):
                while f"#{seen} " not in watcher.next():
                    pass
            hub.close()
            server.stop()
            missed = remove_all(hub, session, more=2)
            assert missed == seen + 2
            with serve() as other:
                assert other.url != server.url
                hub = Hub(other, env, tmp_path)
                said = [hub.say(session, f"number {number}") for number in range(3)]
                for watcher in (lines, everything):
                    got = [watcher.next() for _ in said]
                    assert seqs("\n".join(got)) == said == [missed + 1, missed + 2, missed + 3]
                hub.call("delete_session", "bob", session_id=session)
                code, rest, err = lines.end()
                assert (code, rest) == (exits.SESSION_GONE, [])
                assert "was deleted" in err
                assert f"Messages {seen + 1} to {missed} of {session} were removed" in err
                everything.process.kill()
                _, _, err = everything.end()
                assert f"Messages up to {missed} of {session} were removed" in err
                hub.close()
        finally:
            lines.__exit__()
            everything.__exit__()


def test_a_revoked_key_ends_it(hub: Hub) -> None:
    session = hub.session()
    hub.say(session, "hello")
    key = hub.run("keys", "create", "--agent-id", "judy").stdout.strip()
    started = hub.start("watch", session, "--since", "0", agent="judy", SCS_API_KEY=key)
    with Lines(started) as lines:
        assert lines.next().endswith("hello")
        listed = hub.run("keys", "list").stdout
        [key_id] = [line.split()[0] for line in listed.splitlines() if "judy" in line]
        hub.run("keys", "revoke", key_id)
        code, rest, err = lines.end()
    assert (code, rest) == (exits.REFUSED, [])
    assert "not valid" in err
    assert "Trying again" not in err


@pytest.mark.parametrize(
    "command, code",
    [
        (["watch", "session_0000000000000000"], exits.SESSION_GONE),
        (["wait", "session_0000000000000000"], exits.SESSION_GONE),
        (["watch", "all", "--since", "3"], exits.USAGE),
        (["watch", "all", "--since", "yesterday"], exits.USAGE),
        (["watch", "all", "--exec", "echo {text}"], exits.USAGE),
        (["watch", "all", "--exec", "echo {who}", "--allow-sender", "bob"], exits.USAGE),
        (["watch", "all", "--exec", "echo a{text}", "--allow-sender", "bob"], exits.USAGE),
        (["watch", "all", "--exec", "{sender} {text}", "--allow-sender", "bob"], exits.USAGE),
        (["watch", "all", "--exec", "echo '", "--allow-sender", "bob"], exits.USAGE),
        (["watch", "all", "--url", "127.0.0.1:1"], exits.USAGE),
        (["wait", "all", "--timeout", "-1"], exits.USAGE),
        (["wait", "all", "--timeout", "0.1"], exits.TIMED_OUT),
        (["wait", "all", "--timeout", "0.1", "--url", "http://127.0.0.1:1"], exits.TIMED_OUT),
    ],
)
def test_the_end_has_an_exit_code(hub: Hub, command: list[str], code: int) -> None:
    answer = hub.run(*command)
    assert (answer.returncode, answer.stdout) == (code, "")
    assert "Traceback" not in answer.stderr


def test_a_wrong_key_is_refused(hub: Hub) -> None:
    answer = hub.run("watch", "all", SCS_API_KEY="wrong-0123456789abcdef")
    assert (answer.returncode, answer.stdout) == (exits.REFUSED, "")


def test_mentions_need_a_name(hub: Hub) -> None:
    answer = hub.run("watch", "all", "--mentions-me", agent=None)
    assert answer.returncode == exits.USAGE
    assert "SCS_AGENT_ID" in answer.stderr


def test_waiting_ends_with_the_first_message(hub: Hub, closed: str) -> None:
    session = hub.session()
    seq = hub.say(session, "old")
    waiting = hub.start("wait", session, "--since", str(seq), "--timeout", "60", "--mentions-me")
    with Lines(waiting) as lines:
        hub.say(session, "for nobody")
        new = hub.say(session, "@alice")
        assert lines.end() == (exits.DONE, [f"{session} #{new} bob: @alice"], "")
    answer = hub.run("wait", closed, "--timeout", "60")
    assert (answer.returncode, answer.stdout) == (exits.TIMED_OUT, "")
    assert "is closed" in answer.stderr


@pytest.mark.parametrize(
    "number, code", [(signal.SIGINT, exits.INTERRUPTED), (signal.SIGTERM, exits.TERMINATED)]
)
def test_a_signal_ends_it_without_a_word(hub: Hub, number: signal.Signals, code: int) -> None:
    session = hub.session()
    hub.say(session, "hello")
    with Lines(hub.start("watch", session, "--since", "0")) as lines:
        lines.next()
        lines.process.send_signal(number)
        assert lines.end() == (code, [], "")


def test_it_ends_when_nobody_reads_it(hub: Hub) -> None:
    process = hub.start("watch", hub.session())
    process.stdout.close()
    assert process.wait(PATIENCE_S) == exits.TERMINATED
    process.stdin.close()
    process.stderr.close()


def test_a_command_is_run_for_messages_of_allowed_senders_with_the_message_as_arguments(
    hub: Hub, tmp_path: Path
) -> None:
    session = hub.session()
    hub.say(session, "$(touch pwned) 'a\nb' --help")
    hub.say(session, "of another", agent="mallory")
    hub.say(session, "of alice", agent="alice")
    hub.call("close_session", "bob", session_id=session)
    ran = hub.directory / "ran"
    command = f'{sys.executable} -c "{REPORT}" --message {{text}} {{sender}} {{session_id}} {{seq}}'
    allowed = ["--allow-sender", "bob", "--allow-sender", "alice"]
    answer = hub.run("watch", session, "--since", "0", "--include-own", "--exec", command, *allowed)
    assert answer.returncode == exits.DONE
    assert seqs(answer.stdout) == [1, 2, 3]
    line = f"{session} #1 bob: $(touch pwned) 'a ⏎ b' --help"
    [arguments] = map(json.loads, ran.read_text().splitlines())
    assert arguments == ["--message", line, "bob", session, "1"]
    assert not (hub.directory / "pwned").exists()


def test_a_command_that_fails_or_hangs_is_told_and_the_next_message_follows(hub: Hub) -> None:
    session = hub.session()
    hub.say(session, "one")
    hub.say(session, "two")
    hub.call("close_session", "bob", session_id=session)
    hanging = "import time; print('started', flush=True); time.sleep(60)"
    for command, said in (
        (f'{sys.executable} -c "{hanging}"', "was stopped after 0.5 s"),
        ("/no/such/program", "cannot be run"),
        (f'{sys.executable} -c "raise SystemExit(7)"', "exit code 7"),
    ):
        answer = hub.run(
            *("watch", session, "--since", "0", "--exec-timeout", "0.5"),
            *("--exec", command, "--allow-sender", "bob"),
        )
        assert (answer.returncode, seqs(answer.stdout)) == (exits.DONE, [1, 2])
        assert answer.stderr.count(said) == 2


def test_a_command_runs_no_more_often_than_it_may(hub: Hub) -> None:
    session = hub.session()
    hub.say(session, "one")
    hub.say(session, "two")
    started = hub.start(
        *("watch", session, "--since", "0", "--exec-per-minute", "1"),
        *("--exec", f'{sys.executable} -c ""', "--allow-sender", "bob"),
    )
    with Lines(started) as lines:
        lines.next()
        lines.next()
        assert "runs again in" in lines.process.stderr.readline()
        lines.process.send_signal(signal.SIGTERM)
        assert lines.end()[0] == exits.TERMINATED


WRITE_ONE = """
from shared_context_server.cli.watch import _make_writer
message = {"session_id": "s", "seq": 1, "sender": "bob", "visibility": "public", "content": "c"}
_make_writer(10, as_json=False)(message)
"""


def test_the_code_is_sigterm_s_when_printing_finds_that_the_reader_is_gone() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        answer = subprocess.run(
            [sys.executable, "-c", WRITE_ONE],
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=PATIENCE_S,
            check=False,
        )
    finally:
        os.close(writing)
    assert (answer.returncode, answer.stderr) == (exits.TERMINATED, b"")
