"""Runs the server over stdio, for the one client that has started this process.

Several such processes can share a data dir with each other and with a server over HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from shared_context_server.auth.agent_names import check_name_form
from shared_context_server.auth.instances import name_instance
from shared_context_server.auth.local_clients import connect_local_client
from shared_context_server.auth.middleware import current_connection
from shared_context_server.auth.secrets import ensure_secrets
from shared_context_server.clock.signals import find_ending_signals
from shared_context_server.environment import find_client_session
from shared_context_server.errors import ConfigurationError
from shared_context_server.observability.logs import configure_logs, get_logger
from shared_context_server.observability.traces import open_traces
from shared_context_server.server import open_server
from shared_context_server.settings import Settings
from shared_context_server.transport.direct_calls import answer_calls_directly
from shared_context_server.transport.stdio import run_stdio

STDIN = 0
CLIENT_GONE = "the client went away before it had read its answers"
NAME_OPTIONS = ("--agent-id", "--agent-type")
CHUNK_BYTES = 65_536  # the capacity of a pipe on Linux

_log = get_logger("stdio")


@dataclass(frozen=True, slots=True)
class LocalClient:
    """The agent of the client. None: the client's own name, and the type generic."""

    agent_id: str | None
    agent_type: str | None

    def require_valid_names(self) -> None:
        """Raise ConfigurationError for a name of invalid form."""
        for option, name in zip(NAME_OPTIONS, (self.agent_id, self.agent_type), strict=True):
            if name is not None and (wrong := check_name_form(name, option)):
                raise ConfigurationError(wrong.message)


async def serve_stdio(settings: Settings, client: LocalClient) -> None:
    """Serve until the input ends, or until SIGTERM, SIGINT or SIGHUP. Only the protocol is written to
    stdout.

    Raises ConfigurationError for names that the client's agent may not have.
    """
    client.require_valid_names()
    settings, _ = ensure_secrets(settings)
    configure_logs(settings)
    sys.unraisablehook = _tell_unraisable
    loop = asyncio.get_running_loop()
    with endable_stdin() as end_input:
        for sig in find_ending_signals():
            loop.add_signal_handler(sig, end_input)
        async with open_traces() as traces, open_server(settings, traces=traces) as server:
            connection = await connect_local_client(
                server.services.identity,
                agent_id=client.agent_id,
                agent_type=client.agent_type,
                fields=NAME_OPTIONS,
            )
            if connection.refused is None:
                current_connection.set(name_instance(connection, find_client_session()))
                answer_calls_directly(server.mcp, server.dispatcher)
                try:
                    await run_stdio(server.mcp, settings.max_body_bytes)
                except* BrokenPipeError:
                    _log.debug(CLIENT_GONE)
    # Raised here, because the task groups of an open server would wrap it.
    if connection.refused is not None:
        raise ConfigurationError(connection.refused.message)


def _tell_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Log errors in destructors: a collected stream tries once more to write its buffer."""
    if isinstance(unraisable.exc_value, BrokenPipeError):
        _log.debug(CLIENT_GONE)
    else:
        sys.__unraisablehook__(unraisable)


@contextlib.contextmanager
def endable_stdin() -> Iterator[Callable[[], None]]:
    """Read stdin through a pipe. The yielded function ends the input.

    A thread copies stdin to the pipe, because stdin may be a file or a terminal, and a thread in
    read() cannot be interrupted. So a signal looks to the transport like the end of the input.
    """
    source = os.dup(STDIN)
    read_end, write_end = os.pipe()
    os.dup2(read_end, STDIN)
    os.close(read_end)

    def end_input() -> None:
        # The descriptor is replaced, not closed: the thread may be about to write to it.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, write_end)
        os.close(devnull)

    def copy() -> None:
        with contextlib.suppress(OSError):
            while chunk := os.read(source, CHUNK_BYTES):
                view = memoryview(chunk)
                while view:
                    view = view[os.write(write_end, view) :]
        end_input()

    threading.Thread(target=copy, name="stdin", daemon=True).start()
    try:
        yield end_input
    finally:
        end_input()
