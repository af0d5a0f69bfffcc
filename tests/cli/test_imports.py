"""A command imports what it uses: importing is most of what a short one costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import PATIENCE_S

# What takes a tenth of a second or more, or megabytes, and what brings such things with it. Not
# sqlite3, which measuring coverage imports.
HEAVY = {
    "aiosqlite",
    "asyncpg",
    "fastmcp",
    "jinja2",
    "limits",
    "mcp",
    "mcp_types",
    "prometheus_client",
    "pydantic",
    "pydantic_settings",
    "rapidfuzz",
    "shared_context_server.server",
    "shared_context_server.storage",
    "starlette",
    "uvicorn",
}
STORAGE = {"pydantic", "aiosqlite", "shared_context_server.storage"}

PROGRAM = """
import json, sys
from shared_context_server.cli import main
try:
    main()
except SystemExit as exc:
    assert not exc.code, exc.code
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def list_imported(program: str, arguments: list[str], env: dict[str, str], cwd: Path) -> set[str]:
    """The modules of a process at its end, which tells them in the last line of stderr."""
    answer = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    return set(json.loads(answer.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "command, used",
    [
        ("--help", set()),
        ("--version", set()),
        ("serve --help", {"pydantic"}),
        ("clock --help", {"pydantic"}),
        ("client-config env", {"pydantic"}),
        ("token --agent-id a", STORAGE),
        ("keys create --agent-id a", STORAGE),
        ("status --help", STORAGE),
        ("migrate", STORAGE),
    ],
)
def test_a_command_imports_of_what_is_heavy_only_what_it_uses(
    env: dict[str, str], tmp_path: Path, command: str, used: set[str]
) -> None:
    imported = list_imported(PROGRAM, command.split(), env, tmp_path)
    assert imported & HEAVY == used


def test_the_package_itself_imports_nothing(env: dict[str, str], tmp_path: Path) -> None:
    program = (
        "import json, sys; before = set(sys.modules)\n"
        "import shared_context_server\n"
        "print(json.dumps(sorted(set(sys.modules) - before)), file=sys.stderr)\n"
    )
    assert list_imported(program, [], env, tmp_path) == {"shared_context_server"}
