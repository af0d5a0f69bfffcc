"""The plugin for Claude Code: up to date with what it is made from, and its commands are ours."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from shared_context_server.cli import app
from shared_context_server.cli.claude_plugin import plugin_files
from shared_context_server.remote.hook_options import parse_plainly

CHECKOUT = Path(__file__).parents[2]


def test_its_files_are_up_to_date_and_there_are_no_others() -> None:
    files = plugin_files()
    for name, text in files.items():
        assert (CHECKOUT / name).read_text(encoding="utf-8") == text, "run: make docs"
    folders = (CHECKOUT / "plugin", CHECKOUT / ".claude-plugin")
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert {str(path.relative_to(CHECKOUT)) for path in found} == set(files)


def test_its_server_and_hooks_are_commands_of_ours() -> None:
    [server] = json.loads(plugin_files()["plugin/.mcp.json"])["mcpServers"].values()
    app.parse_args(server["args"], print_error=False, exit_on_error=False)
    hooks = json.loads(plugin_files()["plugin/hooks/hooks.json"])["hooks"]
    assert set(hooks) == {"SessionStart", "UserPromptSubmit", "PostToolUse", "Stop"}
    commands = [each["command"] for [entry] in hooks.values() for each in entry["hooks"]]
    for command in commands:
        _, name, *options = shlex.split(command)
        assert name == "hook"
        assert parse_plainly(options) is not None


def test_a_hook_runs_the_program_and_names_the_agent_that_the_user_has_set(tmp_path: Path) -> None:
    hooks = json.loads(plugin_files()["plugin/hooks/hooks.json"])["hooks"]
    command = hooks["SessionStart"][0]["hooks"][0]["command"]
    (program := tmp_path / "my scs").write_text('#!/bin/sh\nprintf "%s " "$@"\n')
    program.chmod(0o755)
    options = {"CLAUDE_PLUGIN_OPTION_PROGRAM": str(program)}
    for agent_id in (None, "planner"):
        named = {} if agent_id is None else {"CLAUDE_PLUGIN_OPTION_AGENT_ID": agent_id}
        said = subprocess.run(
            ["sh", "-c", command],
            env=os.environ | options | named,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert said == f"hook --agent-id {agent_id or 'claude-code'} "


def test_claude_code_accepts_and_installs_it(tmp_path: Path) -> None:
    """With the real program, if this machine has it; it needs neither a model nor an account."""
    claude = shutil.which("claude")
    if claude is None:
        pytest.skip("no Claude Code here: npm install @anthropic-ai/claude-code")
    env = os.environ | {
        "HOME": str(tmp_path),
        "CLAUDE_CONFIG_DIR": str(tmp_path / ".claude"),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }

    def run(*words: str) -> str:
        done = subprocess.run(
            [claude, "plugin", *words], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    for folder in (CHECKOUT, CHECKOUT / "plugin"):
        assert "passed" in run("validate", "--strict", str(folder))
    run("marketplace", "add", str(CHECKOUT))
    run("install", "shared-context@shared-context-server", "--config", "agent_id=planner")
    details = run("details", "shared-context")
    assert re.search(r"Skills \(1\) +work-with-others", details)
    assert re.search(r"Hooks \(4\)", details)
    assert re.search(r"MCP servers \(1\) +shared-context", details)
