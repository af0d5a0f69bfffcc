"""The command `serve`: runs the server."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Literal

from cyclopts import Parameter

from shared_context_server.cli.options import ServeOptions
from shared_context_server.environment import EnvironmentOwner
from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings


def serve(
    options: ServeOptions = ServeOptions(),  # noqa: B008 - frozen
    *,
    transport: Annotated[
        Literal["http", "stdio"], Parameter(help="stdio: for one client that starts the server.")
    ] = "http",
    reload: Annotated[
        bool, Parameter(negative="", help="Restart when the source changes.")
    ] = False,
    with_clock: Annotated[
        bool, Parameter(negative="", help="Run the clock daemon beside the server.")
    ] = False,
    agent_id: Annotated[
        str | None,
        Parameter(
            env_var="SCS_AGENT_ID", help="stdio: the client's agent id; default: its own name."
        ),
    ] = None,
    agent_type: Annotated[
        str | None, Parameter(env_var="SCS_AGENT_TYPE", help="stdio: the client's agent type.")
    ] = None,
) -> None:
    """Run the server until SIGTERM, SIGINT or SIGHUP, with stdio also until the input ends. With
    workers SIGHUP replaces the workers."""
    # An HTTP server has an environment of its own; a client starts a stdio server in a project.
    settings = options.load(
        EnvironmentOwner.SERVER if transport == "http" else EnvironmentOwner.PROJECT
    )
    if reload and transport == "stdio":
        raise ConfigurationError("--reload needs --transport http.")
    if options.workers is not None and transport == "stdio":
        raise ConfigurationError("--workers needs --transport http.")
    with _clock_beside(settings) if with_clock else nullcontext():
        if transport == "http":
            from shared_context_server.cli.http import serve_http  # noqa: PLC0415 - see below

            serve_http(settings, overrides=options.overrides(), is_reloading=reload)
        else:
            from shared_context_server.cli.stdio import (  # noqa: PLC0415 - see below
                LocalClient,
                serve_stdio,
            )

            asyncio.run(serve_stdio(settings, LocalClient(agent_id, agent_type)))


def _clock_beside(settings: Settings) -> AbstractContextManager[None]:
    # These imports take seconds and tens of megabytes. --help, a wrong setting and the other
    # transport do not need them.
    from shared_context_server.cli.clock_child import supervised_clock  # noqa: PLC0415

    return supervised_clock(settings)
