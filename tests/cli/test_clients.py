"""What connects each client."""

from __future__ import annotations

import json
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_context_server.cli.clients import Access, Client, Expression, client_config
from shared_context_server.settings import read_secrets
from shared_context_server.skills import read_skill
from tests.cli.conftest import Run

URL = "http://127.0.0.1:23456"
HEADERS = {"X-API-Key": "a-key-0123456789abcdef", "X-Agent-ID": "me"}

text_without_nul = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20
)


def split_by_bash(command: str) -> list[str]:
    """The words after the program's name, as bash gives them to it."""
    script = f"claude() {{ printf '%s\\0' \"$@\"; }}\n{command}"
    answer = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    return answer.stdout.decode().split("\0")[:-1]


def test_the_command_for_claude_code_reads_as_documented() -> None:
    config = client_config(Client.CLAUDE, Access(URL, "key-1", "claude-code"))
    assert config.text == (
        f"claude mcp add --transport http shared-context {URL}/mcp"
        ' --header "X-API-Key: key-1" --header "X-Agent-ID: claude-code"'
    )


def test_the_command_through_the_proxy_reads_as_documented() -> None:
    config = client_config(Client.CLAUDE_PROXY, Access(URL, "key-1", "claude-code"))
    assert config.text == (
        "claude mcp add shared-context -- mcp-proxy --transport streamablehttp"
        f" --headers X-API-Key key-1 --headers X-Agent-ID claude-code {URL}/mcp"
    )


@given(key=text_without_nul, agent_id=text_without_nul)
@settings(max_examples=40, deadline=None)
def test_any_text_survives_the_shell(key: str, agent_id: str) -> None:
    direct = client_config(Client.CLAUDE, Access(URL, key, agent_id)).text
    assert split_by_bash(direct)[7::2] == [f"X-API-Key: {key}", f"X-Agent-ID: {agent_id}"]
    proxied = client_config(Client.CLAUDE_PROXY, Access(URL, key, agent_id)).text
    assert split_by_bash(proxied)[9::3] == [key, agent_id]


@given(agent_id=text_without_nul)
@settings(max_examples=20, deadline=None)
def test_an_expression_is_expanded_and_nothing_beside_it_is(agent_id: str) -> None:
    access = Access(URL, Expression("$(echo '$HOME `x` \"')"), agent_id)
    words = split_by_bash(client_config(Client.CLAUDE, access).text)
    assert words[7] == 'X-API-Key: $HOME `x` "'
    assert words[9] == f"X-Agent-ID: {agent_id}"


@pytest.mark.parametrize(
    "client, file, path, entry",
    [
        (
            "cursor",
            "~/.cursor/mcp.json",
            ["mcpServers", "shared-context"],
            {"url": f"{URL}/mcp", "headers": HEADERS},
        ),
        (
            "vscode",
            ".vscode/mcp.json",
            ["servers", "shared-context"],
            {"type": "http", "url": f"{URL}/mcp", "headers": HEADERS},
        ),
        (
            "gemini",
            "~/.gemini/settings.json",
            ["mcpServers", "shared-context"],
            {"httpUrl": f"{URL}/mcp", "headers": HEADERS},
        ),
        (
            "windsurf",
            "~/.codeium/windsurf/mcp_config.json",
            ["mcpServers", "shared-context"],
            {"serverUrl": f"{URL}/mcp", "headers": HEADERS},
        ),
        (
            "opencode",
            "~/.config/opencode/opencode.json",
            ["mcp", "shared-context"],
            {"type": "remote", "url": f"{URL}/mcp", "headers": HEADERS, "enabled": True},
        ),
        (
            "zed",
            "~/.config/zed/settings.json",
            ["context_servers", "shared-context"],
            {"url": f"{URL}/mcp", "headers": HEADERS},
        ),
        (
            "claude-desktop",
            "Claude/claude_desktop_config.json",
            ["mcpServers", "shared-context"],
            {
                "command": "npx",
                "args": [
                    *("-y", "mcp-remote", f"{URL}/mcp", "--allow-http", "--transport", "http-only"),
                    *("--header", f"X-API-Key:{HEADERS['X-API-Key']}"),
                    *("--header", "X-Agent-ID:me"),
                ],
            },
        ),
    ],
)
def test_a_configuration_file_is_json_on_stdout_and_its_place_on_stderr(
    scs: Run, client: str, file: str, path: list[str], entry: dict[str, object]
) -> None:
    answer = scs("client-config", client, "--agent-id", "me", SCS_API_KEY=HEADERS["X-API-Key"])
    assert answer.returncode == 0
    assert file in answer.stderr
    found = json.loads(answer.stdout)
    for name in path:
        assert list(found) == [name]
        found = found[name]
    assert found == entry


@given(key=text_without_nul, agent_id=text_without_nul)
@settings(max_examples=40, deadline=None)
def test_the_configuration_of_codex_is_toml_that_holds_any_text(key: str, agent_id: str) -> None:
    config = client_config(Client.CODEX, Access(URL, key, agent_id))
    assert config.file == "~/.codex/config.toml"
    headers = {"X-API-Key": key, "X-Agent-ID": agent_id}
    entry = {"url": f"{URL}/mcp", "http_headers": headers}
    assert tomllib.loads(config.text) == {"mcp_servers": {"shared-context": entry}}


@pytest.mark.parametrize("command", ["client-config env", "token --agent-id a"])
def test_that_keys_had_to_be_generated_is_said_since_another_data_dir_may_be_meant(
    scs: Run, tmp_path: Path, command: str
) -> None:
    first = scs(*command.split(), "--data-dir", str(tmp_path / "mistyped"))
    assert first.returncode == 0
    assert f"generated in {tmp_path / 'mistyped' / 'secrets.env'}" in first.stderr
    assert "--data-dir" in first.stderr
    assert scs(*command.split(), "--data-dir", str(tmp_path / "mistyped")).stderr == ""


def test_each_client_has_an_agent_id_of_its_own(scs: Run) -> None:
    answer = scs("client-config", "cursor")
    headers = json.loads(answer.stdout)["mcpServers"]["shared-context"]["headers"]
    assert headers["X-Agent-ID"] == "cursor"


def test_the_port_and_host_are_those_of_the_settings(scs: Run) -> None:
    answer = scs("client-config", "env", "--host", "::", "--port", "8000")
    assert "SCS_URL='http://[::1]:8000'" in answer.stdout or (
        'SCS_URL="http://[::1]:8000"' in answer.stdout
    )


def test_without_authentication_no_key_is_given_away(scs: Run) -> None:
    answer = scs("client-config", "vscode", SCS_AUTH_ENABLED="false")
    entry = json.loads(answer.stdout)["servers"]["shared-context"]
    assert entry["headers"] == {"X-Agent-ID": "vscode"}


def test_an_unknown_client_is_refused_with_those_there_are(scs: Run) -> None:
    answer = scs("client-config", "emacs")
    assert answer.returncode == 2
    assert "claude-proxy" in answer.stderr


def test_mcp_remote_is_a_command() -> None:
    config = client_config(Client.MCP_REMOTE, Access("https://host", "key-1", "me"))
    assert config.text == (
        "npx -y mcp-remote https://host/mcp --transport http-only"
        " --header X-API-Key:key-1 --header X-Agent-ID:me"
    )


def test_hooks_and_watches_find_the_server_by_the_data_dir_and_hold_no_key(
    scs: Run, tmp_path: Path
) -> None:
    data_dir = str(tmp_path / "data")
    for client in ("claude", "codex", "gemini"):
        answer = scs(
            *("client-config", client, "--with-hook", "--with-watch", "--data-dir", data_dir),
            *("--agent-id", "me"),
        )
        assert answer.returncode == 0, answer.stderr
        main, found, rest = answer.stdout.partition('{\n  "hooks"')
        key = read_secrets(tmp_path / "data" / "secrets.env")["API_KEY"]
        assert key in main
        assert found
        assert key not in rest
        assert f"--agent-id me --data-dir {data_dir}" in rest


@pytest.mark.parametrize(
    "option, instead",
    [
        ("--with-hook", "wait_for_messages"),
        ("--with-watch", "wait_for_messages"),
        ("--with-skill", "skill://"),
    ],
)
def test_a_client_that_cannot_use_an_option_is_told_what_to_do_instead(
    scs: Run, option: str, instead: str
) -> None:
    answer = scs("client-config", "claude-desktop", option)
    assert answer.returncode == 2
    assert instead in answer.stderr


def test_the_skill_is_written_where_the_client_looks_for_skills(scs: Run, tmp_path: Path) -> None:
    printed = scs("client-config", "claude", "--with-skill")
    assert printed.stdout.endswith(f"{read_skill()}\n")
    assert "Put this into ~/.claude/skills/work-with-others/SKILL.md.\n" in printed.stderr
    written = scs("client-config", "claude", "--with-skill", "--write")
    assert written.returncode == 0, written.stderr
    file = tmp_path / ".claude" / "skills" / "work-with-others" / "SKILL.md"
    assert file.read_text(encoding="utf-8") == read_skill()


def test_written_files_are_private_and_keep_what_was_there(scs: Run, tmp_path: Path) -> None:
    """HOME is the test's directory."""
    config = tmp_path / ".codex" / "config.toml"
    config.parent.mkdir()
    before = '# mine\nmodel = "x"\n\n[mcp_servers.other]\nurl = "u"  # theirs\n'
    config.write_text(before)
    first = scs("client-config", "codex", "--with-hook", "--write")
    assert (first.returncode, first.stdout) == (0, "")
    [backup] = config.parent.glob("config.toml.*.bak")
    assert backup.read_text() == before
    assert str(backup) in first.stderr
    assert config.read_text().startswith(before)
    assert set(tomllib.loads(config.read_text())["mcp_servers"]) == {"other", "shared-context"}
    hooks = config.with_name("hooks.json")
    assert list(json.loads(hooks.read_text())["hooks"]) == [
        "UserPromptSubmit",
        "PostToolUse",
        "Stop",
    ]
    for path in (config, backup, hooks):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = scs("client-config", "codex", "--with-hook", "--write")
    assert again.stderr.count("has it already") == 2
    assert len(list(config.parent.iterdir())) == 3


def test_a_file_is_written_once_and_none_if_another_cannot_be(scs: Run, tmp_path: Path) -> None:
    settings = tmp_path / ".claude" / "settings.json"
    settings.parent.mkdir()
    settings.write_text("{}")
    assert scs("client-config", "claude", "--with-hook", "--with-watch", "--write").returncode == 0
    [backup] = settings.parent.glob("settings.json.*.bak")
    assert backup.read_text() == "{}"
    hooks = tmp_path / ".codex" / "hooks.json"
    hooks.parent.mkdir()
    hooks.write_text('{"hooks": {"Stop": "mine"}}')
    refused = scs("client-config", "codex", "--with-hook", "--write")
    assert refused.returncode == 2
    assert "'Stop'" in refused.stderr
    assert list(hooks.parent.iterdir()) == [hooks]
