"""`serve`: runs the server."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Annotated, Literal

from cyclopts import Parameter

from shared_context_server.cli.clock_child import supervised_clock
from shared_context_server.cli.http import serve_http
from shared_context_server.cli.options import ServeOptions
from shared_context_server.cli.stdio import LocalClient, serve_stdio
from shared_context_server.errors import ConfigurationError


def serve(
    options: ServeOptions = ServeOptions(),  # noqa: B008 - frozen
    *,
    transport: Annotated[
        Literal["http", "stdio"], Parameter(help="stdio: for one client, which starts this.")
    ] = "http",
    reload: Annotated[
        bool, Parameter(negative="", help="Restart when the source changes.")
    ] = False,
    with_clock: Annotated[
        bool, Parameter(negative="", help="Run the clock daemon beside the server.")
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
    if reload and transport == "stdio":
        raise ConfigurationError("--reload is for --transport http.")
    if options.workers is not None and transport == "stdio":
        raise ConfigurationError("--workers is for --transport http.")
    with supervised_clock(settings) if with_clock else nullcontext():
        if transport == "http":
            serve_http(settings, overrides=options.overrides(), is_reloading=reload)
        else:
            asyncio.run(serve_stdio(settings, LocalClient(agent_id, agent_type)))
