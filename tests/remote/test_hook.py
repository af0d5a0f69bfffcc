"""What `scs hook` tells an agent, and when it is silent."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from shared_context_server.cli.hook import hook
from shared_context_server.remote.access import find_default_data_dir, find_state_dir
from shared_context_server.remote.hook_options import HookOptions, parse_plainly
from tests.cli.conftest import make_env, make_serve
from tests.cli.test_imports import list_imported
from tests.remote.conftest import Hub, Lines
from tests.until import until

SILENT = (0, "", "")
PROMPT = json.dumps({"hook_event_name": "UserPromptSubmit", "session_id": "of-the-client"})
# All that a silent hook may import of what is not built in: each of them takes milliseconds.
LIGHT = {
    *("__future__", "_collections_abc", "_json", "_sitebuiltins", "_socket", "abc"),
    *("array", "codecs", "collections", "contextlib", "copyreg", "encodings", "enum", "fcntl"),
    *("functools", "genericpath", "importlib", "io", "json", "keyword", "math", "os"),
    *("operator", "posixpath", "re", "reprlib", "runpy", "select", "selectors", "site", "socket"),
    *("stat", "types", "warnings", "zipimport"),
}


def outcome(answer: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return answer.returncode, answer.stdout, answer.stderr


def test_a_mention_is_told_once_as_additional_context(hub: Hub) -> None:
    session = hub.session()
    assert outcome(hub.run("hook", stdin=PROMPT)) == SILENT
    hub.say(session, "for @alice\nand \x1b[31mmore\u202e")
    hub.say(session, "for nobody")
    hub.say(session, "for you", visibility="private", recipients=["alice"])
    answer = hub.run("hook", stdin=PROMPT)
    assert (answer.returncode, answer.stderr) == (0, "")
    told = json.loads(answer.stdout)["hookSpecificOutput"]
    assert told["hookEventName"] == "UserPromptSubmit"
    lines = told["additionalContext"].splitlines()
    assert lines[1:-1] == [
        rf"- {session} #1 bob: for @alice ⏎ and \u001b[31mmore\u202e",
        f"- {session} #3 bob (private): for you",
    ]
    assert "not from your user" in lines[0]
    assert outcome(hub.run("hook", stdin=PROMPT)) == SILENT


def test_what_was_read_is_not_told(hub: Hub) -> None:
    session = hub.session()
    seq = hub.say(session, "@alice")
    hub.call("mark_read", "alice", session_id=session, seq=seq)
    assert outcome(hub.run("hook", stdin=PROMPT)) == SILENT


def test_another_agent_of_the_machine_is_told_too(hub: Hub) -> None:
    hub.say(hub.session(), "@carol and @dave")
    assert "@carol and @dave" in hub.run("hook", agent="carol").stdout
    assert "@carol and @dave" in hub.run("hook", "--agent-id", "dave").stdout
    long_name = "a" * 120
    hub.say(hub.session(), f"@{long_name}")
    assert long_name in hub.run("hook", agent=long_name).stdout
    assert outcome(hub.run("hook", agent=long_name)) == SILENT


def test_more_than_one_hook_tells_is_told_by_the_next(hub: Hub) -> None:
    session = hub.session()
    for number in range(12):
        hub.say(session, f"@erin {number}")
    told = [hub.run("hook", session, agent="erin").stdout for _ in range(3)]
    assert [text.count("@erin") for text in told] == [10, 2, 0]


def test_of_hooks_at_once_one_tells(hub: Hub) -> None:
    hub.say(hub.session(), "@frank")
    hooks = [Lines(hub.start("hook", "--event", "PostToolUse", agent="frank")) for _ in range(4)]
    told = [started.end() for started in hooks]
    for started in hooks:
        started.__exit__()
    assert sorted("@frank" in "".join(out) for _, out, _ in told) == [False, False, False, True]
    assert all(err == "" for _, _, err in told)


@pytest.mark.parametrize(
    "event, decision", [("Stop", "block"), ("SubagentStop", "block"), ("AfterAgent", "deny")]
)
def test_an_agent_that_is_about_to_stop_is_given_a_reason_to_go_on(
    hub: Hub, event: str, decision: str
) -> None:
    hub.say(hub.session(), "@alice")
    told = json.loads(hub.run("hook", "--event", event).stdout)
    assert told["decision"] == decision
    assert "@alice" in told["reason"]


def test_wake_tells_on_stderr_with_exit_code_2(hub: Hub) -> None:
    hub.say(hub.session(), "@alice")
    answer = hub.run("hook", "--wake", stdin=PROMPT)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "@alice" in answer.stderr
    assert outcome(hub.run("hook", "--wake", stdin=PROMPT)) == SILENT


async def test_a_waiting_hook_tells_what_comes_and_only_one_waits_for_a_session_of_a_client(
    hub: Hub,
) -> None:
    session = hub.session()
    waiting = Lines(hub.start("hook", "--wake", "--wait", "60", agent="grace"))
    with waiting.process.stdin as stdin:
        stdin.write(PROMPT)
    locks = hub.directory / "state" / "shared-context-server" / "hooks"
    await until(lambda: any(locks.glob("waits-*")))
    assert outcome(hub.run("hook", "--wake", "--wait", "60", stdin=PROMPT, agent="grace")) == SILENT
    hub.say(session, "nothing")
    hub.say(session, "now @grace")
    code, out, err = waiting.end()
    waiting.__exit__()
    assert (code, out) == (2, [])
    assert "now @grace" in err


def test_a_client_without_a_user_is_not_kept_from_ending(hub: Hub) -> None:
    unattended = {"agent": "heidi", "CLAUDE_CODE_SESSION_ATTENDED": "0"}
    assert outcome(hub.run("hook", "--wait", "600", **unattended)) == SILENT
    assert outcome(hub.run("hook", "--wait", "0.2", "--unattended", **unattended)) == SILENT


def test_a_hook_waits_no_longer_than_it_was_told(hub: Hub) -> None:
    assert outcome(hub.run("hook", "--wait", "0.2", agent="heidi", stdin=PROMPT)) == SILENT


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--url", "http://127.0.0.1:1"], "No server answers at http://127.0.0.1:1. Start it"),
        (["--url", "ftp://nowhere"], "http://"),
    ],
)
def test_failures_are_silent_but_for_verbose(hub: Hub, arguments: list[str], reason: str) -> None:
    variables = {"SCS_API_KEY": "", "SCS_DATA_DIR": ""}
    assert outcome(hub.run("hook", *arguments, **variables)) == SILENT
    answer = hub.run("hook", *arguments, "--verbose", **variables)
    assert (answer.returncode, answer.stdout) == (0, "")
    assert re.search(reason, answer.stderr)
    assert answer.stderr.count("\n") == 1


def test_a_server_that_does_not_answer_costs_no_more_than_the_timeout(
    hub: Hub, tmp_path: Path
) -> None:
    env = make_env(tmp_path)
    with make_serve(env, tmp_path)() as server:
        server.process.send_signal(signal.SIGSTOP)
        try:
            answer = hub.run("hook", "--url", server.url, "--timeout", "0.3", "--verbose")
        finally:
            server.process.send_signal(signal.SIGCONT)
    assert answer.returncode == 0
    assert "did not answer in time" in answer.stderr


def test_a_wrong_key_is_a_failure(hub: Hub) -> None:
    answer = hub.run("hook", "--verbose", SCS_API_KEY="wrong-0123456789abcdef")
    assert "The API key is not valid" in answer.stderr
    assert answer.returncode == 0


def test_another_user_s_file_does_not_say_where_the_key_is_sent(hub: Hub, tmp_path: Path) -> None:
    address = tmp_path / "server.json"
    address.write_text('{"url": "http://127.0.0.1:1"}')
    try:
        os.chown(address, 12345, 12345)
    except PermissionError:
        pytest.skip("only root can give files away")
    answer = hub.run("hook", "--verbose", "--data-dir", str(tmp_path))
    assert "another user" in answer.stderr


def test_a_mistake_in_the_command_line_is_exit_code_2(hub: Hub) -> None:
    for arguments in (["--nope"], ["--timeout", "soon"], ["--timeout", "0"], ["--wait", "-1"]):
        answer = hub.run("hook", *arguments)
        assert answer.returncode == 2, arguments
        assert "Traceback" not in answer.stderr


def test_the_quick_parser_knows_the_options_of_the_complete_one() -> None:
    complete = set(inspect.signature(hook).parameters) - {"remote"} | {
        "url",
        "data_dir",
        "agent_id",
    }
    assert set(HookOptions.__slots__) == complete
    for name in complete - {"session_ids", "unattended", "verbose", "wake"}:
        words = [f"--{name.replace('_', '-')}", "1.5"]
        parsed = parse_plainly(words)
        assert parsed is not None
        assert str(getattr(parsed, name)) == "1.5"


def test_the_directories_are_those_of_platformdirs(monkeypatch: pytest.MonkeyPatch) -> None:
    for home in ("", "/somewhere"):
        monkeypatch.setenv("XDG_DATA_HOME", home)
        monkeypatch.setenv("XDG_STATE_HOME", home)
        assert find_default_data_dir() == platformdirs.user_data_dir("shared-context-server")
        assert find_state_dir() == platformdirs.user_state_dir("shared-context-server")


PROGRAM = """
import sys
before = set(sys.modules)
from shared_context_server.__main__ import main
try:
    main()
except SystemExit as exc:
    assert not exc.code, exc.code
imported = sorted(set(sys.modules) - before)
import json
print(json.dumps(imported), file=sys.stderr)
"""


def test_a_silent_hook_imports_nothing_that_takes_long(hub: Hub) -> None:
    env = hub.env | {"SCS_AGENT_ID": "ivan"}
    imported = list_imported(PROGRAM, ["hook", "--verbose"], env, hub.directory)
    assert "shared_context_server.remote.mentions" in imported
    builtin = set(sys.builtin_module_names)
    ours = {name for name in imported if name.startswith("shared_context_server")}
    heavy = {name.partition(".")[0] for name in imported - ours} - LIGHT - builtin
    assert {name for name in heavy if not name.startswith("_")} == set()
    assert not {name for name in ours if not re.match(r"\w+(\.__main__|\.remote.*)?$", name)}
