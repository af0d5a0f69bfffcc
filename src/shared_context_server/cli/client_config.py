"""The command `client-config`: prints the configuration that connects a client to this server."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from shared_context_server.cli import clients, wakers
from shared_context_server.cli.addresses import base_url
from shared_context_server.cli.banner import program_words
from shared_context_server.cli.config_files import prepare_change
from shared_context_server.cli.options import ServerOptions, load_secrets
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
        url=base_url(settings.http_host, settings.http_port),
        key=settings.api_key.get_secret_value() if settings.auth_enabled else None,
        agent_id=agent_id or clients.default_agent_id(client),
    )
    waker = wakers.Waker(program_words(), access.agent_id, settings.data_dir)
    configs = [clients.client_config(client, access)]
    if with_hook:
        configs.append(wakers.hook_config(client, waker))
    if with_watch:
        configs += wakers.watch_configs(client, waker)
    for config in _write(configs) if write else configs:
        _print(config)


def _print(config: clients.ClientConfig) -> None:
    print(config.text)
    if config.file is not None:
        secret = " It contains your API key." if config.has_key else ""
        print(f"Put this into {config.file}.{secret}", file=sys.stderr)


def _write(configs: list[clients.ClientConfig]) -> list[clients.ClientConfig]:
    """Write what is for files, each file once, and none if one of them cannot be changed. Return the
    others."""
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
        backup = change.write()
        if backup is not None:
            print(f"Written: {change.path}. Before: {backup}", file=sys.stderr)
        elif change.before is not None:
            print(f"{change.path} has it already.", file=sys.stderr)
        else:
            print(f"Written: {change.path}", file=sys.stderr)
    return [config for config in configs if config.file is None or config.document is None]
