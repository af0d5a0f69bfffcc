"""Makes the command or the configuration file that connects each kind of client.

Formats: `claude mcp add --help` of Claude Code 2.1.329, `mcp-proxy --help` of 0.13.0,
https://cursor.com/docs/mcp, https://code.visualstudio.com/docs/copilot/reference/mcp-configuration,
https://geminicli.com/docs/tools/mcp-server/, and Codex CLI 0.171.0, tried.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from shared_context_server.environment import DOTENV, PREFIX
from shared_context_server.settings import Settings

SERVER_NAME = "shared-context"


class Expression(str):
    """Shell code that expands to a secret inside double quotes (POSIX)."""

    __slots__ = ()


class Client(StrEnum):
    CLAUDE = "claude"
    CLAUDE_PROXY = "claude-proxy"
    CURSOR = "cursor"
    VSCODE = "vscode"
    GEMINI = "gemini"
    CODEX = "codex"
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
    """`text` is a shell command if `file` is None, else the content for `file`."""

    text: str
    file: str | None = None


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
    return ClientConfig(_json({"mcpServers": {SERVER_NAME: entry}}), "~/.cursor/mcp.json")


def _vscode(access: Access) -> ClientConfig:
    entry = {"type": "http", "url": access.mcp_url, "headers": access.headers}
    return ClientConfig(_json({"servers": {SERVER_NAME: entry}}), ".vscode/mcp.json")


def _gemini(access: Access) -> ClientConfig:
    entry = {"httpUrl": access.mcp_url, "headers": access.headers}
    return ClientConfig(_json({"mcpServers": {SERVER_NAME: entry}}), "~/.gemini/settings.json")


def _codex(access: Access) -> ClientConfig:
    # A basic string of TOML looks like a string of JSON, except for U+007F.
    headers = ", ".join(f"{_toml(name)} = {_toml(value)}" for name, value in access.headers.items())
    lines = [
        f"[mcp_servers.{SERVER_NAME}]",
        f"url = {_toml(access.mcp_url)}",
        f"http_headers = {{ {headers} }}",
    ]
    return ClientConfig("\n".join(lines), "~/.codex/config.toml")


def _env(access: Access) -> ClientConfig:
    return ClientConfig(
        f"export SCS_URL={_word(access.url)}\nexport SCS_API_KEY={_word(access.key or '')}"
    )


_MAKERS: dict[Client, Callable[[Access], ClientConfig]] = {
    Client.CLAUDE: _claude,
    Client.CLAUDE_PROXY: _claude_proxy,
    Client.CURSOR: _cursor,
    Client.VSCODE: _vscode,
    Client.GEMINI: _gemini,
    Client.CODEX: _codex,
    Client.ENV: _env,
}


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


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
