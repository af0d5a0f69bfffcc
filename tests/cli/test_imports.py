"""A command imports what it uses: importing is most of what a short one costs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from shared_context_server.settings import load_settings
from shared_context_server.storage import migrate_storage
from tests.cli.conftest import PATIENCE_S, STOP_S, Serve

# What takes a tenth of a second or more, or megabytes, and what brings such things with it. Not
# sqlite3, which measuring coverage imports.
HEAVY = {
    "aiosqlite",
    "asyncpg",
    "cryptography",
    "fastmcp",
    "jinja2",
    "jwt",
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
# What a server has no use for until somebody searches, reads its documentation, or mistypes a name,
# and what of its libraries it never uses.
LATE = {
    "asyncpg",
    "beartype",
    "docket",
    "fastmcp.client",
    "jinja2",
    "key_value",
    "limits",
    "openai",
    "psutil",
    "rapidfuzz",
    "regex",
    "shared_context_server.app",
    "shared_context_server.cli.stdio",
    "shared_context_server.rest.docs",
    "shared_context_server.storage.postgres",
    "shared_context_server.ui.routes",
}
STORAGE = {"pydantic", "aiosqlite", "shared_context_server.storage"}

KEY = "the-ordinary-key-0123456789"
VERSION = "2025-06-18"
CLIENT = {"name": "a-client", "version": "1"}

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
        ("token --agent-id a", STORAGE | {"cryptography", "jwt"}),
        ("keys create --agent-id a", STORAGE),
        ("status --help", STORAGE - {"aiosqlite"}),
        ("tail --help", set()),
        ("memory set --help", set()),
        ("top --help", set()),
        ("demo --help", {"pydantic"}),
        ("migrate", STORAGE),
    ],
)
def test_a_command_imports_of_what_is_heavy_only_what_it_uses(
    env: dict[str, str], tmp_path: Path, command: str, used: set[str]
) -> None:
    imported = list_imported(PROGRAM, command.split(), env, tmp_path)
    assert imported & HEAVY == used


def test_a_misspelt_command_imports_no_other(env: dict[str, str], tmp_path: Path) -> None:
    program = PROGRAM.replace("assert not exc.code", "assert exc.code == 2")
    assert list_imported(program, ["sesions"], env, tmp_path) & HEAVY == set()


def test_the_completion_of_all_commands_imports_no_server(
    env: dict[str, str], tmp_path: Path
) -> None:
    imported = list_imported(PROGRAM, ["completion", "bash"], env, tmp_path)
    assert imported & {"fastmcp", "mcp", "shared_context_server.server"} == set()


def test_a_command_that_talks_to_a_server_imports_nothing_of_it(
    serve: Serve, env: dict[str, str], tmp_path: Path
) -> None:
    with serve():
        for command in ("sessions", "agents", "memory list", "tail", "top"):
            imported = list_imported(PROGRAM, command.split(), env, tmp_path)
            assert imported & HEAVY == set(), command


@pytest.mark.parametrize(
    "commands, also_used",
    [
        (("sessions", "agents", "memory list", "tail", "top"), set()),
        (("search anything",), {"rapidfuzz"}),
    ],
)
def test_a_command_on_a_data_dir_imports_no_web_framework(
    env: dict[str, str], tmp_path: Path, commands: tuple[str, ...], also_used: set[str]
) -> None:
    migrate_storage(load_settings(data_dir=Path(env["DATA_DIR"])))
    for command in commands:
        imported = list_imported(PROGRAM, command.split(), env, tmp_path)
        assert imported & HEAVY <= STORAGE | also_used, command


def test_a_server_has_imported_after_its_first_calls_nothing_that_these_do_not_need(
    env: dict[str, str], tmp_path: Path
) -> None:
    # Without the indexer, which begins in the background and needs more.
    variables = {"HTTP_PORT": "0", "API_KEY": KEY, "LOG_FORMAT": "json", "SEARCH_INDEX": "false"}
    command = [sys.executable, "-c", PROGRAM, "serve"]
    with subprocess.Popen(
        command, env=env | variables, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            serving = next(line for line in process.stderr if '"health"' in line)
            [url] = re.findall(r"(http://[^/\s\"]+)/health", serving)
            call_first(url)
            process.terminate()
            said = process.stderr.read()
            assert process.wait(STOP_S) == 0
        finally:
            process.kill()
    imported = set(json.loads(said.splitlines()[-1]))
    assert imported & LATE == set()
    assert {"fastmcp", "mcp", "jwt"} < imported


def call_first(url: str) -> None:
    """What clients of either protocol era, and of plain HTTP, begin with."""
    headers = {
        "X-API-Key": KEY,
        "X-Agent-ID": "a",
        "Accept": "application/json, text/event-stream",
    }
    with httpx.Client(base_url=url, headers=headers) as client:
        made = client.post("/mcp/tool/create_session", json={"purpose": "p"}).json()
        session = {"session_id": made["session_id"]}
        requests: list[tuple[str, dict[str, object]]] = [
            ("initialize", {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": CLIENT}),
            ("tools/list", {}),
            ("resources/list", {}),
            ("resources/read", {"uri": f"session://{made['session_id']}"}),
            ("prompts/list", {}),
            ("tools/call", {"name": "add_message", "arguments": {**session, "content": "c"}}),
            ("tools/call", {"name": "get_messages", "arguments": session}),
        ]
        for method, params in requests:
            message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            answer = client.post("/mcp", json=message, headers={"MCP-Protocol-Version": VERSION})
            assert '"result"' in answer.text, (method, answer.text)


def test_the_object_for_fastmcp_s_tools_opens_nothing_when_it_is_imported(
    env: dict[str, str], tmp_path: Path
) -> None:
    program = (
        "import json, sys\n"
        "from shared_context_server.app import mcp\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
    )
    variables = env | {"SCS_DATA_DIR": env["DATA_DIR"]}
    imported = list_imported(program, [], variables, tmp_path)
    assert imported & LATE == {"shared_context_server.app"}
    assert list(tmp_path.iterdir()) == []


def test_the_package_itself_imports_nothing(env: dict[str, str], tmp_path: Path) -> None:
    program = (
        "import json, sys; before = set(sys.modules)\n"
        "import shared_context_server\n"
        "print(json.dumps(sorted(set(sys.modules) - before)), file=sys.stderr)\n"
    )
    assert list_imported(program, [], env, tmp_path) == {"shared_context_server"}
