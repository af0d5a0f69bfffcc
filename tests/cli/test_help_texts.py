"""The help of each command: its group, an example that is right, and the exit codes."""

from __future__ import annotations

import shlex

import pytest

from shared_context_server import cli
from shared_context_server.cli import reference
from shared_context_server.cli.help_texts import EXAMPLES, EXIT_CODES, find_group

COMMANDS = dict(reference.list_commands())


def test_every_command_has_an_example_and_every_example_a_command() -> None:
    assert set(EXAMPLES) == set(COMMANDS)


@pytest.mark.parametrize("words", EXAMPLES)
def test_an_example_is_a_command_line_of_its_command(words: str) -> None:
    example = EXAMPLES[words].removeprefix('eval "$(').removesuffix(')"')
    arguments = shlex.split(example)
    assert arguments[0] == "scs"
    assert arguments[1 : 1 + len(words.split())] == words.split()
    cli.app.parse_args(arguments[1:], print_error=False, exit_on_error=False)


@pytest.mark.parametrize("words", ["export", "memory set"])
def test_help_ends_with_the_example_and_the_exit_codes(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    cli.app([*words.split(), "--help"], result_action="return_value")
    shown = capsys.readouterr().out.rstrip().splitlines()
    assert shown[-1].strip() == EXIT_CODES
    assert shown[-3].strip() == f"Example: {EXAMPLES[words]}"


def test_the_help_lists_all_commands_in_groups(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    cli.app(["--help"], result_action="return_value")
    shown = capsys.readouterr().out
    places = [shown.index(f"─ {name} ─") for name in ("Server", "Look", "Do", "Set up", "Data")]
    assert places == sorted(places)
    assert all(f"│ {name} " in shown for name in cli.COMMANDS)
    assert find_group("backup") is find_group("export")
