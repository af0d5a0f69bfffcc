"""What the command line itself promises: help, version, exit codes, one line for one's mistakes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shared_context_server import __version__
from shared_context_server.cli import complete_words
from tests.cli.conftest import Run


def test_help_names_every_command(scs: Run) -> None:
    answer = scs("--help")
    assert answer.returncode == 0
    for command in ("serve", "status", "client-config", "token", "keys", "migrate"):
        assert command in answer.stdout


@pytest.mark.parametrize(
    "program, words, completed",
    [
        ("/bin/shared-context-server", [], ["serve"]),
        ("/bin/shared-context-server", ["--help"], ["--help"]),
        ("/bin/scs", [], []),
    ],
)
def test_the_program_that_is_named_after_the_server_starts_it(
    program: str, words: list[str], completed: list[str]
) -> None:
    assert complete_words(program, words) == completed


def test_help_shows_only_defaults_that_say_something(scs: Run) -> None:
    said = scs("watch", "--help").stdout
    assert "[default: now]" in said
    for nothing in ("None", "False", "()"):
        assert f"[default: {nothing}]" not in said


def test_version_prints_the_version_only(scs: Run) -> None:
    assert scs("--version").stdout == f"{__version__}\n"


def test_help_does_not_load_the_server() -> None:
    program = (
        "import sys\n"
        "from shared_context_server.cli import app\n"
        "app(['--help'], result_action='return_value')\n"
        "loaded = {'fastmcp', 'mcp', 'uvicorn', 'starlette', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


@pytest.mark.parametrize(
    "arguments",
    [("unknown",), ("serve", "--unknown"), ("serve", "--port", "many"), ("token",)],
)
def test_a_command_that_is_not_understood_is_exit_code_2(
    scs: Run, arguments: tuple[str, ...]
) -> None:
    answer = scs(*arguments)
    assert answer.returncode == 2
    assert answer.stderr.startswith("shared-context-server: ")
    assert answer.stderr.count("\n") == 1
    assert "--help" in answer.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_completes_commands_and_options(scs: Run, shell: str) -> None:
    answer = scs("completion", shell, "--name", "scs")
    assert answer.returncode == 0
    for word in ("doctor", "sessions", "expected-version"):
        assert word in answer.stdout
    if shell == "bash":
        said = subprocess.run(["bash", "-n"], input=answer.stdout, text=True, check=False)
        assert said.returncode == 0


@pytest.mark.parametrize("command", ["serve", "status", "migrate", "client-config claude"])
def test_a_wrong_setting_is_one_line_and_exit_code_2(scs: Run, command: str) -> None:
    answer = scs(*command.split(), SCS_JWT_SECRET_KEY="far-too-short")
    assert answer.returncode == 2
    assert answer.stderr.startswith("shared-context-server: ")
    assert answer.stderr.count("\n") == 1
    assert "JWT_SECRET_KEY" in answer.stderr
    assert "far-too-short" not in answer.stderr
