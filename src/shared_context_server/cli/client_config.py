"""The command `client-config`: prints the configuration that connects a client to this server."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from shared_context_server.cli import clients
from shared_context_server.cli.addresses import base_url
from shared_context_server.cli.options import ServerOptions, load_secrets
from shared_context_server.environment import EnvironmentOwner


def client_config(
    client: Annotated[clients.Client, Parameter(help="The client to connect; env is for a shell.")],
    options: ServerOptions = ServerOptions(),  # noqa: B008 - frozen
    *,
    agent_id: Annotated[str | None, Parameter(help="The client's agent id.")] = None,
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
    config = clients.client_config(client, access)
    print(config.text)
    if config.file is not None:
        print(f"Put this into {config.file}. It contains your API key.", file=sys.stderr)
