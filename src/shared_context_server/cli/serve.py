"""`serve`: runs the server."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from cyclopts import Parameter

from shared_context_server.cli.http import serve_http
from shared_context_server.cli.options import ServerOptions
from shared_context_server.cli.stdio import LocalClient, serve_stdio
from shared_context_server.errors import ConfigurationError


def serve(
    options: ServerOptions = ServerOptions(),  # noqa: B008 - frozen
    *,
    transport: Annotated[
        Literal["http", "stdio"], Parameter(help="stdio: for one client, which starts this.")
    ] = "http",
    reload: Annotated[
        bool, Parameter(negative="", help="Restart when the source changes.")
    ] = False,
    agent_id: Annotated[
        str | None,
        Parameter(env_var="AGENT_ID", help="stdio: who the client is; default: its own name."),
    ] = None,
    agent_type: Annotated[
        str | None, Parameter(env_var="AGENT_TYPE", help="stdio: what kind of agent it is.")
    ] = None,
) -> None:
    """Run the server until it is told to stop (SIGTERM, SIGINT; for stdio also end of input)."""
    settings = options.load()
    if transport == "http":
        serve_http(settings, overrides=options.overrides(), is_reloading=reload)
    elif reload:
        raise ConfigurationError("--reload is for --transport http.")
    else:
        asyncio.run(serve_stdio(settings, LocalClient(agent_id, agent_type)))
