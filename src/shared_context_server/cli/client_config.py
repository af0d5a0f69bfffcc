"""`client-config`: what connects a client to this server."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from shared_context_server.cli import clients
from shared_context_server.cli.addresses import base_url
from shared_context_server.cli.options import ServerOptions, load_secrets
from shared_context_server.environment import Surroundings


def client_config(
    client: Annotated[clients.Client, Parameter(help="What to connect; env is for a shell.")],
    options: ServerOptions = ServerOptions(),  # noqa: B008 - frozen
    *,
    agent_id: Annotated[str | None, Parameter(help="Who the client is to the others.")] = None,
) -> None:
    """Print the command, or the text for its configuration file, that connects CLIENT.

    The output holds the API key. This is typed in the directory of somebody's project, so nothing
    is read from its .env nor from variables without SCS_ before their names.
    """
    settings = load_secrets(options.load(Surroundings.PROJECT))
    assert settings.api_key is not None
    access = clients.Access(
        url=base_url(settings.http_host, settings.http_port),
        key=settings.api_key.get_secret_value() if settings.auth_enabled else None,
        agent_id=agent_id or clients.default_agent_id(client),
    )
    config = clients.client_config(client, access)
    print(config.text)
    if config.file is not None:
        print(f"Put this into {config.file}; it holds your API key.", file=sys.stderr)
