"""The command `client-config`: prints the configuration that connects a client to this server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from shared_context_server.cli import clients, wakers
from shared_context_server.cli.banner import program_words
from shared_context_server.cli.config_files import put_into_file
from shared_context_server.cli.options import ServerOptions, load_secrets
from shared_context_server.cli.running import find_url
from shared_context_server.environment import EnvironmentOwner


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
    write: Annotated[
        bool, Parameter(negative="", help="Write into the files, with a backup of each.")
    ] = False,
) -> None:
    """Print the command, or the text for the configuration file, that connects CLIENT.

    The output contains the API key. The working directory is usually a project, so its .env file and
    variables without the prefix SCS_ are ignored.
    """
    settings = load_secrets(options.load(EnvironmentOwner.PROJECT))
    assert settings.api_key is not None
    access = clients.Access(
        url=find_url(options, settings),
        key=settings.api_key.get_secret_value() if settings.auth_enabled else None,
        agent_id=agent_id or clients.default_agent_id(client),
    )
    waker = wakers.Waker(program_words(), access.agent_id, settings.data_dir)
    configs = [clients.client_config(client, access)]
    if with_hook:
        configs.append(wakers.hook_config(client, waker))
    if with_watch:
        configs += wakers.watch_configs(client, waker)
    for config in configs:
        if write and config.file is not None and config.document is not None:
            _write(config.file, config.document, has_key=config.has_key)
        else:
            _print(config)


def _print(config: clients.ClientConfig) -> None:
    print(config.text)
    if config.file is not None:
        secret = " It contains your API key." if config.has_key else ""
        print(f"Put this into {config.file}.{secret}", file=sys.stderr)


def _write(file: str, document: clients.Document, *, has_key: bool) -> None:
    path = Path(file).expanduser()
    existed = path.exists()
    backup = put_into_file(path, document, has_key=has_key)
    if backup is not None:
        print(f"Written: {path}. Before: {backup}", file=sys.stderr)
    elif existed:
        print(f"{path} has it already.", file=sys.stderr)
    else:
        print(f"Written: {path}", file=sys.stderr)
