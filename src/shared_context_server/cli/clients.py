"""Makes the command or the configuration file that connects each kind of client.

Formats: `claude mcp add --help` of Claude Code 2.1.329, `mcp-proxy --help` of 0.13.0, mcp-remote 0.15.1,
https://cursor.com/docs/mcp, https://code.visualstudio.com/docs/copilot/reference/mcp-configuration,
https://geminicli.com/docs/tools/mcp-server/, https://docs.windsurf.com/windsurf/cascade/mcp,
https://opencode.ai/docs/mcp-servers/, https://zed.dev/docs/ai/mcp,
https://modelcontextprotocol.io/docs/develop/connect-local-servers (Claude Desktop), and Codex CLI
0.171.0, tried.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from shared_context_server.environment import DOTENV, PREFIX
from shared_context_server.settings import Settings

SERVER_NAME = "shared-context"

Document = dict[str, Any]
"""The part of a configuration file that is ours."""


class Expression(str):
    """Shell code that expands to a secret inside double quotes (POSIX)."""

    __slots__ = ()


class Client(StrEnum):
    CLAUDE = "claude"
    CLAUDE_DESKTOP = "claude-desktop"
    CLAUDE_PROXY = "claude-proxy"
    CURSOR = "cursor"
    VSCODE = "vscode"
    GEMINI = "gemini"
    CODEX = "codex"
    WINDSURF = "windsurf"
    OPENCODE = "opencode"
    ZED = "zed"
    MCP_REMOTE = "mcp-remote"
    ENV = "env"


@dataclass(frozen=True, slots=True)
class Access:
    """What a client needs: the server's URL, and the key (None if the server requires none)."""

    url: str
    key: str | None
    agent_id: str

    @property
    def mcp_url(self) -> str:
        return f"{self.url}/mcp"

    @property
    def headers(self) -> dict[str, str]:
        named = {"X-Agent-ID": self.agent_id}
        return named if self.key is None else {"X-API-Key": self.key, **named}


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """`text` is a shell command if `file` is None, else the content for `file`, which is that of
    `document`."""

    text: str
    file: str | None = None
    document: Document | None = None
    has_key: bool = True

    @classmethod
    def of_json(cls, document: Document, file: str, *, has_key: bool = True) -> ClientConfig:
        """The content of a JSON file."""
        text = json.dumps(document, indent=2, ensure_ascii=False)
        return cls(text, file, document, has_key)


def key_expression(settings: Settings) -> Expression:
    """The shell expression that reads API_KEY from its file or variable."""
    assert settings.api_key is not None
    names = (f"{PREFIX}API_KEY", "API_KEY")
    for path in (settings.secrets_path, Path(DOTENV)):
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for name in names:
            if f"{name}={settings.api_key.get_secret_value()}" in lines:
                return Expression(f"$(sed -n 's/^{name}=//p' {shlex.quote(str(path.absolute()))})")
    return Expression("${SCS_API_KEY:-$API_KEY}")


def client_config(client: Client, access: Access) -> ClientConfig:
    """The configuration of this client."""
    return _MAKERS[client](access)


def default_agent_id(client: Client) -> str:
    """The agent id of a client if its user gives none."""
    return "claude-code" if client in (Client.CLAUDE, Client.CLAUDE_PROXY) else client.value


def _claude(access: Access) -> ClientConfig:
    headers = [f"--header {_word(f'{name}: ', value)}" for name, value in access.headers.items()]
    start = f"claude mcp add --transport http {SERVER_NAME} {_word(access.mcp_url)}"
    return ClientConfig(" ".join([start, *headers]))


def _claude_proxy(access: Access) -> ClientConfig:
    headers = [f"--headers {name} {_word(value)}" for name, value in access.headers.items()]
    start = f"claude mcp add {SERVER_NAME} -- mcp-proxy --transport streamablehttp"
    return ClientConfig(" ".join([start, *headers, _word(access.mcp_url)]))


def _cursor(access: Access) -> ClientConfig:
    entry = {"url": access.mcp_url, "headers": access.headers}
    return ClientConfig.of_json({"mcpServers": {SERVER_NAME: entry}}, "~/.cursor/mcp.json")


def _vscode(access: Access) -> ClientConfig:
    entry = {"type": "http", "url": access.mcp_url, "headers": access.headers}
    return ClientConfig.of_json({"servers": {SERVER_NAME: entry}}, ".vscode/mcp.json")


def _gemini(access: Access) -> ClientConfig:
    entry = {"httpUrl": access.mcp_url, "headers": access.headers}
    return ClientConfig.of_json({"mcpServers": {SERVER_NAME: entry}}, "~/.gemini/settings.json")


def _codex(access: Access) -> ClientConfig:
    # A basic string of TOML looks like a string of JSON, except for U+007F.
    headers = ", ".join(f"{_toml(name)} = {_toml(value)}" for name, value in access.headers.items())
    lines = [
        f"[mcp_servers.{SERVER_NAME}]",
        f"url = {_toml(access.mcp_url)}",
        f"http_headers = {{ {headers} }}",
    ]
    entry = {"url": str(access.mcp_url), "http_headers": access.headers}
    return ClientConfig(
        "\n".join(lines), "~/.codex/config.toml", {"mcp_servers": {SERVER_NAME: entry}}
    )


def _claude_desktop(access: Access) -> ClientConfig:
    folder = "Library/Application Support" if sys.platform == "darwin" else ".config"
    # It starts servers that speak stdio only.
    entry = {"command": "npx", "args": ["-y", *_mcp_remote_words(access)]}
    return ClientConfig.of_json(
        {"mcpServers": {SERVER_NAME: entry}}, f"~/{folder}/Claude/claude_desktop_config.json"
    )


def _windsurf(access: Access) -> ClientConfig:
    entry = {"serverUrl": access.mcp_url, "headers": access.headers}
    return ClientConfig.of_json(
        {"mcpServers": {SERVER_NAME: entry}}, "~/.codeium/windsurf/mcp_config.json"
    )


def _opencode(access: Access) -> ClientConfig:
    entry = {"type": "remote", "url": access.mcp_url, "headers": access.headers, "enabled": True}
    return ClientConfig.of_json({"mcp": {SERVER_NAME: entry}}, "~/.config/opencode/opencode.json")


def _zed(access: Access) -> ClientConfig:
    entry = {"url": access.mcp_url, "headers": access.headers}
    return ClientConfig.of_json(
        {"context_servers": {SERVER_NAME: entry}}, "~/.config/zed/settings.json"
    )


def _mcp_remote(access: Access) -> ClientConfig:
    return ClientConfig(" ".join(["npx -y", *map(_word, _mcp_remote_words(access))]))


def _mcp_remote_words(access: Access) -> list[str]:
    # Without a space after the colon: some clients lose spaces in arguments.
    headers = [
        word for name, value in access.headers.items() for word in ("--header", f"{name}:{value}")
    ]
    insecure = [] if access.url.startswith("https:") else ["--allow-http"]
    return ["mcp-remote", access.mcp_url, *insecure, "--transport", "http-only", *headers]


def _env(access: Access) -> ClientConfig:
    variables = {"SCS_URL": access.url, "SCS_API_KEY": access.key or ""}
    if access.agent_id != Client.ENV:  # else the commands choose it
        variables["SCS_AGENT_ID"] = access.agent_id
    return ClientConfig(
        "\n".join(f"export {name}={_word(value)}" for name, value in variables.items())
    )


_MAKERS: dict[Client, Callable[[Access], ClientConfig]] = {
    Client.CLAUDE: _claude,
    Client.CLAUDE_DESKTOP: _claude_desktop,
    Client.CLAUDE_PROXY: _claude_proxy,
    Client.CURSOR: _cursor,
    Client.VSCODE: _vscode,
    Client.GEMINI: _gemini,
    Client.CODEX: _codex,
    Client.WINDSURF: _windsurf,
    Client.OPENCODE: _opencode,
    Client.ZED: _zed,
    Client.MCP_REMOTE: _mcp_remote,
    Client.ENV: _env,
}


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _word(*parts: str) -> str:
    """These texts as one word of a POSIX shell. Expressions are expanded, other texts are quoted."""
    text = "".join(parts)
    if any(isinstance(part, Expression) for part in parts):
        quoted = (part if isinstance(part, Expression) else _escape(part) for part in parts)
        return f'"{"".join(quoted)}"'
    if shlex.quote(text) == text:
        return text
    # `!` is history expansion in an interactive shell, in double quotes too
    return shlex.quote(text) if re.search(r'[\\"$`!]', text) else f'"{text}"'


def _escape(text: str) -> str:
    return re.sub(r'([\\"$`])', r"\\\1", text)
