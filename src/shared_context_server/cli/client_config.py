"""The command `client-config`: prints the configuration that connects a client to this server."""

from __future__ import annotations

import shlex
import sys
from collections import defaultdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from shared_context_server.cli import clients, install_links, skill_files, wakers
from shared_context_server.cli.banner import data_dir_option, program_words
from shared_context_server.cli.config_files import prepare_change, put_file
from shared_context_server.cli.options import ServerOptions, load_secrets
from shared_context_server.cli.probes import KEY_HEADER, find_refusal
from shared_context_server.cli.running import find_url
from shared_context_server.display import show_printable
from shared_context_server.environment import EnvironmentOwner
from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import IdentityMode, Settings, read_secrets

_SCOPES = {
    clients.Client.CLAUDE: "at the end of the command",
    clients.Client.CLAUDE_PROXY: "before the name shared-context",  # what follows -- is the proxy's
}


def client_config(
    client: Annotated[clients.Client, Parameter(help="The client to connect; env is for a shell.")],
    options: ServerOptions = ServerOptions(),  # noqa: B008 - frozen
    *,
    agent_id: Annotated[str | None, Parameter(help="The client's agent id.")] = None,
    with_hook: Annotated[
        bool, Parameter(negative="", help="Also the hooks that tell its model unread mentions.")
    ] = False,
    with_watch: Annotated[
        bool, Parameter(negative="", help="Also what lets its agent watch for messages.")
    ] = False,
    with_skill: Annotated[
        bool,
        Parameter(negative="", help="Also the skill that teaches its agent to work with others."),
    ] = False,
    link: Annotated[
        bool,
        Parameter(negative="", help="Print a link that adds the server to Cursor or VS Code."),
    ] = False,
    with_key: Annotated[
        bool, Parameter(negative="", help="Put the API key into the link; keep it secret then.")
    ] = False,
    write: Annotated[
        bool, Parameter(negative="", help="Write into the files, with a backup of each.")
    ] = False,
) -> None:
    """Print the command, the text for the configuration file, or the link that connects CLIENT.

    The output contains the API key, unless it is a link without --with-key. The working directory is usually a project, so its .env file and
    variables without the prefix SCS_ are ignored.
    """
    if with_key and not link:
        raise ConfigurationError(
            "--with-key belongs to --link; other output contains the key anyway."
        )
    settings = load_secrets(options.load(EnvironmentOwner.PROJECT))
    assert settings.api_key is not None
    access = clients.Access(
        url=find_url(options, settings),
        key=settings.api_key.get_secret_value() if settings.auth_enabled else None,
        agent_id=agent_id or clients.default_agent_id(client),
    )
    _tell_refusal(client, access, settings)
    waker = wakers.Waker(program_words(), access.agent_id, settings.data_dir)
    if link:
        configs = [
            clients.ClientConfig(install_links.install_link(client, access, with_key=with_key))
        ]
        _tell_key_of_link(client, access, with_key=with_key)
    else:
        configs = [clients.client_config(client, access)]
    if with_hook:
        configs.append(wakers.hook_config(client, waker))
    if with_watch:
        configs += wakers.watch_configs(client, waker)
    if with_skill:
        configs.append(skill_files.skill_config(client))
    for config in _write(configs) if write else configs:
        _print(config)
        if write:
            print(f"Not written: {client} is set up by running this.", file=sys.stderr)
    if place := _SCOPES.get(client):
        print(
            "Claude Code adds the server for this folder only. "
            f"With `--scope user` {place}, it adds it for all folders.",
            file=sys.stderr,
        )


def _tell_refusal(client: clients.Client, access: clients.Access, settings: Settings) -> None:
    """Say if the server refuses this key, as far as that can be known at once."""
    if access.key is None:
        return
    shared = read_secrets(settings.secrets_path).get("API_KEY")
    refusal = find_refusal(access.url, access.key, access.agent_id)
    if refusal is not None:
        told = f"The server at {access.url} refuses this access: {show_printable(str(refusal))}"
    elif settings.identity is IdentityMode.BOUND and access.key == shared:
        told = "IDENTITY=bound: the server refuses this shared key."
    else:
        return
    name, where = shlex.quote(access.agent_id), data_dir_option(settings)
    if refusal is not None and refusal.field != KEY_HEADER:
        todo = f"Name its agent: scs client-config {client} --agent-id NAME"
    elif refusal is not None and refusal.code == "UNAUTHENTICATED":
        todo = (
            "Name the data dir of the server with --data-dir, or set SCS_API_KEY to a key of its "
            "own, which `scs keys create` makes."
        )
    else:
        todo = (
            "Make a key for this agent, and print this again with it: "
            f'SCS_API_KEY="$(scs keys create --agent-id {name}{where})" '
            f"scs client-config {client} --agent-id {name}{where}"
        )
    print(f"{told} {todo}", file=sys.stderr)


def _tell_key_of_link(client: clients.Client, access: clients.Access, *, with_key: bool) -> None:
    if access.key is not None:
        told = "The link contains your API key." if with_key else install_links.describe_key(client)
        print(told, file=sys.stderr)


def _print(config: clients.ClientConfig) -> None:
    print(config.text)
    if config.file is not None:
        secret = " It contains your API key." if config.has_key else ""
        print(f"Put this into {config.file}.{secret}", file=sys.stderr)


def _write(configs: list[clients.ClientConfig]) -> list[clients.ClientConfig]:
    """Write what is for files, each file once, and none of the settings if one of their files cannot
    be changed. Return the others."""
    of_files = defaultdict(list)
    for config in configs:
        if config.file is not None and config.document is not None:
            of_files[config.file].append(config)
    changes = [
        prepare_change(
            Path(file).expanduser(),
            *(config.document for config in of_file if config.document is not None),
            has_key=any(config.has_key for config in of_file),
        )
        for file, of_file in of_files.items()
    ]
    for change in changes:
        _tell(change.path, change.write(), existed=change.before is not None)
    for config in configs:
        if config.file is not None and config.document is None:
            path = Path(config.file).expanduser()
            existed = path.exists()
            _tell(path, put_file(path, config.text), existed=existed)
    return [config for config in configs if config.file is None]


def _tell(path: Path, backup: Path | None, *, existed: bool) -> None:
    if backup is not None:
        print(f"Written: {path}. Before: {backup}", file=sys.stderr)
    elif existed:
        print(f"{path} has it already.", file=sys.stderr)
    else:
        print(f"Written: {path}", file=sys.stderr)
