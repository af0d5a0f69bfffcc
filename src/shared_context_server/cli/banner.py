"""The text a server prints at its start: its addresses, its data, and how to connect clients.

It contains no key: the commands in it read the key from the secrets file.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from shared_context_server import __version__
from shared_context_server.auth.addresses import is_loopback
from shared_context_server.cli.addresses import base_url
from shared_context_server.cli.clients import (
    Access,
    Client,
    Expression,
    client_config,
    default_agent_id,
    key_expression,
)
from shared_context_server.settings import IdentityMode, Settings, read_secrets

PROGRAM = "shared-context-server"
WHO_HOLDS_THE_KEY = (
    "whoever has API_KEY can call as any agent; make keys for single agents with `scs keys create "
    "--agent-id NAME`, then set IDENTITY=bound"
)


def startup_facts(settings: Settings, port: int, *, are_keys_new: bool) -> dict[str, str]:
    """Addresses and paths of the server, by name. `port` is the port it listens on."""
    url = base_url(settings.http_host, port)
    facts = {
        "mcp": f"{url}/mcp",
        "rest": f"{url}/mcp/tool/{{name}}",
        "dashboard": f"{url}/ui",
        "docs": f"{url}/docs",
        "health": f"{url}/health",
        "data": str(settings.data_dir),
        "database": without_password(settings.storage_url),
        "keys": _describe_keys(settings, are_keys_new=are_keys_new),
    }
    is_shared = settings.auth_enabled and settings.identity is IdentityMode.OPEN
    if is_shared and not is_loopback(settings.http_host):
        facts["identity"] = WHO_HOLDS_THE_KEY
    return facts


def connect_commands(settings: Settings, port: int) -> tuple[str, str]:
    """The shell commands that connect Claude Code, directly and through mcp-proxy."""
    direct, proxied = (
        client_config(
            client,
            Access(
                url=base_url(settings.http_host, port),
                key=_key_of(client, settings),
                agent_id=default_agent_id(client),
            ),
        ).text
        for client in (Client.CLAUDE, Client.CLAUDE_PROXY)
    )
    return direct, proxied


def _key_of(client: Client, settings: Settings) -> Expression | None:
    """The shell expression of the key for this client; None if it needs none."""
    if not settings.auth_enabled:
        return None
    if settings.identity is IdentityMode.OPEN:
        return key_expression(settings)
    agent_id = shlex.quote(default_agent_id(client))
    return Expression(
        f"$({_program()} keys create --agent-id {agent_id}{data_dir_option(settings)})"
    )


def compose_banner(settings: Settings, port: int, *, are_keys_new: bool) -> str:
    """The startup text for people."""
    facts = startup_facts(settings, port, are_keys_new=are_keys_new)
    direct, proxied = connect_commands(settings, port)
    return "\n".join(
        [
            f"Shared Context Server {__version__}",
            *(f"  {name:<9} {fact}" for name, fact in facts.items()),
            "",
            "Connect Claude Code:",
            f"  {direct}",
            "or through mcp-proxy:",
            f"  {proxied}",
            f"Other clients: {_config_command(settings, port)}",
            *_offer_demo(settings),
            "",
        ]
    )


def _config_command(settings: Settings, port: int) -> str:
    """The shell command that prints the configuration of another client."""
    shown = (Client.CLAUDE, Client.CLAUDE_PROXY, Client.ENV)
    others = "|".join(client for client in Client if client not in shown)
    command = f"{_program()} client-config {others}{_options(settings, port)}"
    if not settings.auth_enabled or settings.identity is IdentityMode.OPEN:
        return command
    # The shared key is refused: each needs a key of its own.
    made = f"$({_program()} keys create --agent-id NAME{data_dir_option(settings)})"
    return f'SCS_API_KEY="{made}" {command} --agent-id NAME'


def _offer_demo(settings: Settings) -> list[str]:
    """The line on the demo, whose agents share one key; none where such a key is refused."""
    if settings.auth_enabled and settings.identity is IdentityMode.BOUND:
        return []
    return [f"Agents at work, without a model: {_program()} demo{data_dir_option(settings)}"]


def _program() -> str:
    """The shell command that starts this program."""
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m {__package__.partition('.')[0]}"
    found = shutil.which(PROGRAM)
    if found is not None and Path(found).resolve() == started.resolve():
        return PROGRAM
    return shlex.quote(str(started.absolute()))


def program_words() -> tuple[str, ...]:
    """The words that start this program from any directory, whatever PATH is then."""
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return sys.executable, "-m", __package__.partition(".")[0]
    return (str(started.absolute()),)


def data_dir_option(settings: Settings) -> str:
    """The option that names the data dir, after a space; "" for the usual one."""
    data_dir = settings.data_dir.absolute()
    usual = Settings.model_construct().data_dir.absolute()
    return "" if data_dir == usual else f" --data-dir {shlex.quote(str(data_dir))}"


def _options(settings: Settings, port: int) -> str:
    """The options with which another command finds this server, each after a space. Such a command
    reads only prefixed variables, so all other settings must be given as options."""
    usual = Settings.model_construct()
    options = {
        "--host": settings.http_host if settings.http_host != usual.http_host else None,
        "--port": str(port) if port != usual.http_port else None,
    }
    given = "".join(f" {name} {shlex.quote(value)}" for name, value in options.items() if value)
    return given + data_dir_option(settings)


def without_password(url: str) -> str:
    """The URL with its password replaced and without its query."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    netloc = parts.netloc.replace(f":{parts.password}@", ":***@")
    return urlunsplit(parts._replace(netloc=netloc, query=""))


def _describe_keys(settings: Settings, *, are_keys_new: bool) -> str:
    if not settings.auth_enabled:
        return "not required (AUTH_ENABLED=false)"
    if are_keys_new:
        return f"generated in {settings.secrets_path} (mode 0600)"
    kept = read_secrets(settings.secrets_path).get("API_KEY")
    if settings.api_key is not None and kept == settings.api_key.get_secret_value():
        return f"in {settings.secrets_path}"
    return "from the configuration"
