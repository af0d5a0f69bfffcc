"""Every code block of the pages works as pasted, or says why it cannot be run."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from shared_context_server.cli.clients import Access, Client, client_config
from tests.cli.c_programs import compile_c, find_c_compiler
from tests.cli.code_blocks import PAGES, ROOT, Block, blocks_of, check, commands_of, marked
from tests.cli.conftest import COMMAND, PATIENCE_S, Run, Serve
from tests.cli.older_file import make_older_file
from tests.clock.daemons import own_prefix, run_daemon_process
from tests.postgres import open_cluster

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_tested_or_checked_or_says_why_not(block: Block) -> None:
    if block.reason == "it runs until it is stopped":
        check(block)
    elif block.reason is not None:
        assert len(block.reason.split()) > 1
    elif block.tested_as is None:
        check(block)
    elif block.tested_as.endswith(".py"):
        assert (ROOT / "examples" / block.tested_as).exists()  # all of them are run
    else:
        series = re.sub(r"^(client|tutorial)-.+", r"\1-", block.tested_as)
        assert f'"{series}' in TESTS


@pytest.mark.parametrize(
    "page", ["getting-started", "tutorial", "clients", "integrations", "waiting"]
)
def test_a_block_that_a_beginner_pastes_is_run_or_says_why_not(page: str) -> None:
    """It is not enough that it could be right."""
    blocks = [block for block in BLOCKS if block.page == ROOT / f"docs/{page}.md"]
    assert len(blocks) > 5
    assert [str(block) for block in blocks if not block.mark and block.language != "json"] == []


def test_all_pages_have_been_read() -> None:
    assert len(BLOCKS) > 80
    fences = sum(page.read_text(encoding="utf-8").count("```") for page in PAGES)
    assert sum(1 for block in BLOCKS if block.language) == fences / 2


@pytest.mark.parametrize(
    "text",
    [
        "    scs token --agent-id me --port 8000\n",
        "    scs no-such-command\n",
        "    make no-such-target\n",
        "    X=$(scs status --no-such-option)\n",
        "    NO_SUCH_SETTING=1\n",
        "    something --else\n",
        "```yaml\nservices: {clock: {command: shared-context-server clock}}\n```\n",
        "```yaml\nservices: {server: {ipc: 'service:clock'}}\n```\n",
        "```python\ncreate_sdk_server()\n```\n",
        "```python\nfrom shared_context_server.embed import no_such_name\n\nno_such_name()\n```\n",
        "```sh\necho 'open\n```\n",
        "```text\nsomething\n```\n",
        "- an item\n\n      scs no-such-command\n",
    ],
)
def test_a_block_that_does_not_work_is_found(text: str) -> None:
    (block,) = blocks_of(ROOT / "README.md", f"Words.\n\n{text}\nMore words.\n")
    with pytest.raises(AssertionError):
        check(block)


def test_commands_are_found_wherever_they_stand() -> None:
    script = 'A=1 .venv/bin/scs status --port 8000  # x\nB=$(scs token --agent-id a) && curl "$B" | cat >f\n'
    assert list(commands_of(script)) == [
        ["scs", "status", "--port", "8000"],
        ["scs", "token", "--agent-id", "a"],
        ["curl", "$B"],
        ["cat"],
    ]


def run_script(text: str, env: dict[str, str], cwd: Path) -> str:
    """What a script prints, with the program in place of its path in the checkout."""
    script = re.sub(r"(?m)(\.venv/bin/|^)scs\b", " ".join(COMMAND), text)
    answer = subprocess.run(
        ["bash", "-euc", script],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_getting_started_works_when_pasted(
    serve: Serve, env: dict[str, str], tmp_path: Path
) -> None:
    page = "docs/getting-started.md"
    with serve() as server:
        port = server.url.rsplit(":", 1)[1]
        at = env | {"HTTP_PORT": port}
        assert "ready" in run_script(marked(page, "status"), at, tmp_path)
        connecting = run_script(marked(page, "connect"), at, tmp_path)
        assert "claude mcp add" in connecting
        assert '"X-Agent-ID": "reviewer"' in connecting
        cursor, vscode = run_script(marked(page, "links"), at, tmp_path).splitlines()
        assert cursor.startswith("cursor://")
        assert vscode.startswith("vscode:mcp/install?")
        demo = marked(page, "demo").replace("60", f"1 --speed 20 --url {server.url}")
        key = {"SCS_API_KEY": server.secrets["API_KEY"]}
        assert "adds three tasks" in run_script(demo, at | key, tmp_path)
        named = at | {"SCS_HTTP_PORT": port, "SCS_DATA_DIR": env["DATA_DIR"]}
        elsewhere = marked(page, "data-dir").replace("./data", env["DATA_DIR"])
        assert "claude mcp add" in run_script(elsewhere, at, tmp_path)
        added, seen = run_script(marked(page, "first-message"), named, tmp_path).splitlines()
        assert json.loads(added)["seq"] == 1
        assert json.loads(seen)["messages"][0]["sender"] == "planner"
        watch = marked(page, "watch").replace(":23456", f":{port}")
        assert len(json.loads(run_script(watch, at, tmp_path))["sessions"]) == 1


def test_every_client_is_connected_as_written(scs: Run, tmp_path: Path) -> None:
    for client in Client:
        script = marked("docs/clients.md", f"client-{client}")
        ((program, *words),) = (command for command in commands_of(script) if command[0] == "scs")
        answer = scs(*words, SCS_HTTP_PORT="8123", SCS_DATA_DIR=str(tmp_path / "data"))
        assert (program, answer.returncode) == ("scs", 0), answer.stderr
        said = answer.stdout
        if "--write" in words:
            file = client_config(client, Access("http://127.0.0.1:1", "key", "me")).file
            assert file is not None, client
            said = (tmp_path / file.removeprefix("~/")).read_text(encoding="utf-8")
        assert "http://127.0.0.1:8123" in said
        if "--agent-id" in words:
            assert words[words.index("--agent-id") + 1] in said


@pytest.mark.parametrize(
    "page, mark, path",
    [
        ("clients", "client-skill", ".claude/skills/work-with-others/SKILL.md"),
        ("clients", "client-claude-hook", ".claude/settings.json"),
        ("waiting", "waiting-config", ".codex/hooks.json"),
        ("waiting", "waiting-hooks", ".gemini/settings.json"),
    ],
)
def test_what_helps_a_client_is_written_as_written(
    scs: Run, tmp_path: Path, page: str, mark: str, path: str
) -> None:
    for _, *words in commands_of(marked(f"docs/{page}.md", mark)):
        answer = scs(*words, SCS_DATA_DIR=str(tmp_path / "data"))
        assert answer.returncode == 0, answer.stderr
    assert (tmp_path / path).exists()


def test_a_store_moves_as_written(serve: Serve, env: dict[str, str], tmp_path: Path) -> None:
    with serve():
        pass  # it has made the store
    moved = marked("docs/moving.md", "moving").replace("/srv/new", str(tmp_path / "new"))
    run_script(moved, env, tmp_path)
    assert (tmp_path / "backup.jsonl.gz").exists()
    assert list((tmp_path / "new").glob("*.db"))


def test_the_file_of_an_older_server_is_imported_as_written(
    env: dict[str, str], tmp_path: Path
) -> None:
    make_older_file(tmp_path / "chat_history.db")
    dry, imported = run_script(marked("docs/moving.md", "older"), env, tmp_path).split("kind ", 1)
    assert "message               4\n" in dry
    assert "equal" in imported


def test_keys_are_made_listed_rotated_and_revoked_as_written(
    env: dict[str, str], tmp_path: Path
) -> None:
    *creations, show, rotate, revoke = marked("docs/identity.md", "keys").splitlines()
    assert len({run_script(create, env, tmp_path) for create in creations}) == 3
    listed = run_script(show, env, tmp_path)
    assert "builder" in listed
    assert "the review team" in listed
    key_id, *_ = re.findall(r"key_\w+", listed)
    assert run_script(rotate.replace("key_…", key_id), env, tmp_path).startswith("scs_")
    run_script(revoke.replace("key_…", key_id), env, tmp_path)
    assert "revoked" in run_script(show, env, tmp_path)


def test_a_key_is_traded_for_a_token_as_written(
    serve: Serve, env: dict[str, str], tmp_path: Path
) -> None:
    with serve() as server:
        script = marked("docs/identity.md", "authenticate")
        script = script.replace("http://127.0.0.1:23456", server.url)
        answer = run_script(script.replace("…", server.secrets["API_KEY"]), env, tmp_path)
    assert json.loads(answer)["agent_id"] == "alice"


def test_claude_code_is_connected_as_written(
    serve: Serve, env: dict[str, str], tmp_path: Path
) -> None:
    """With a program `claude` that prints its arguments."""
    claude = tmp_path / "claude"
    claude.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    claude.chmod(0o755)
    with serve() as server:
        at = env | {
            "SCS_DATA_DIR": env["DATA_DIR"],
            "SCS_HTTP_PORT": server.url.rsplit(":", 1)[1],
            "PATH": f"{tmp_path}:{env['PATH']}",
        }
        direct = run_script(marked("README.md", "claude"), at, tmp_path).splitlines()
        key = server.secrets["API_KEY"]
        named = {"SCS_URL": server.url, "SCS_API_KEY": key}
        proxied = run_script(marked("README.md", "claude-proxy"), at | named, tmp_path).splitlines()
    assert f"{server.url}/mcp" in direct
    assert f"X-API-Key: {key}" in direct
    assert proxied[4:5] == ["mcp-proxy"]
    assert {key, f"{server.url}/mcp"} <= set(proxied)


def test_the_python_reader_of_the_clock_works() -> None:
    with own_prefix() as prefix, run_daemon_process(prefix):
        text = marked("docs/clock.md", "clock-python").replace("Reader()", f'Reader("{prefix}")')
        answer = subprocess.run(
            [sys.executable, "-c", text], capture_output=True, text=True, check=True
        )
    time_line, air_line = answer.stdout.splitlines()
    assert float(time_line.split()[0]) > 1.7e9
    assert " True " in air_line  # simulated


@pytest.mark.parametrize("standard", ["c11", "gnu11", "c17"])
def test_the_c_reader_of_the_clock_compiles_and_works(tmp_path: Path, standard: str) -> None:
    compiler = find_c_compiler()
    if compiler is None:
        pytest.skip("no C compiler here")
    reader = compile_c(compiler, marked("docs/clock.md", "clock-c"), tmp_path, standard)
    with own_prefix() as prefix:
        assert subprocess.run([reader, prefix], capture_output=True, check=False).returncode == 1
        with run_daemon_process(prefix):
            answer = subprocess.run([reader, prefix], capture_output=True, text=True, check=True)
    assert float(answer.stdout.split()[0]) > 1.7e9


def test_the_role_and_the_database_are_made_as_written() -> None:
    with open_cluster() as cluster:
        for mark in ("role", "keepalives"):
            for statement in marked("docs/postgresql.md", mark).splitlines():
                cluster.execute(statement)


CLAUDE = """\
#!{python}
import json, sys
message = {{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}}
body = {{"subtype": "mcp_message", "server_name": "calculator", "message": message}}
print(json.dumps({{"type": "control_request", "request_id": "r1", "request": body}}), flush=True)
answer = json.loads(sys.stdin.readline())
with open("answer.json", "w") as file:
    json.dump({{"answer": answer, "arguments": sys.argv[1:]}}, file)
"""


def test_the_host_of_the_command_line_works_as_pasted(tmp_path: Path) -> None:
    """With a program `claude` that asks for the tools and ends."""
    claude = tmp_path / "claude"
    claude.write_text(CLAUDE.format(python=sys.executable))
    claude.chmod(claude.stat().st_mode | stat.S_IXUSR)
    subprocess.run(
        [sys.executable, "-c", marked("docs/embedding.md", "control")],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        cwd=tmp_path,
        timeout=PATIENCE_S,
        check=True,
    )
    written = json.loads((tmp_path / "answer.json").read_text())
    response = written["answer"]["response"]["response"]["mcp_response"]
    assert [tool["name"] for tool in response["result"]["tools"]] == ["divide"]
    assert "--mcp-config" in written["arguments"]


def test_fastmcp_s_client_opens_the_server_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    exec(marked("docs/starting.md", "fastmcp-client"), {})
    assert capsys.readouterr().out.startswith("session_")
    assert (tmp_path / "data" / "shared_context.db").exists()


async def test_functions_become_tools_as_written() -> None:
    names: dict[str, object] = {}
    exec(marked("docs/embedding.md", "functions"), names)
    from shared_context_server.embed import McpServerAdapter  # noqa: PLC0415
    from tests.embed.conftest import tool_call  # noqa: PLC0415

    async with McpServerAdapter(names["calculator"]) as adapter:  # type: ignore[arg-type]
        call = adapter.handle_message(tool_call("divide", {"a": 1, "b": 2}))
        answer = await asyncio.wait_for(call, PATIENCE_S)
    assert answer is not None
    assert answer["result"]["structuredContent"] == {"result": 0.5}
