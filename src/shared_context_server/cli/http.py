"""Runs the server over HTTP with uvicorn: one process, several workers, or one with reload."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.supervisors import ChangeReload

from shared_context_server.auth.secrets import ensure_secrets
from shared_context_server.cli.addresses import listen, require_safe_exposure
from shared_context_server.cli.banner import compose_banner, startup_facts
from shared_context_server.cli.connection_limits import make_limits, raise_descriptor_limit
from shared_context_server.cli.connections import Connection
from shared_context_server.cli.running import published_address
from shared_context_server.cli.workers import serve_with_workers
from shared_context_server.clock.signals import find_ending_signals
from shared_context_server.environment import EnvironmentOwner
from shared_context_server.errors import ConfigurationError
from shared_context_server.observability.logs import configure_logs, get_logger
from shared_context_server.server import LifespanApp
from shared_context_server.settings import LogFormat, McpSessions, Settings, load_settings
from shared_context_server.storage import StorageId, identify_storage, open_storage
from shared_context_server.tools.catalog import require_known_tools

GRACE_S = 5  # for running calls at a shutdown; acknowledged writes are durable in any case
# How long an idle connection stays open. It is longer than in common proxies and clients (60 s or
# less): if the server closes first, a request that is on its way is lost, and a POST is not repeated.
KEEP_ALIVE_S = 75
PACKAGE = Path(__file__).parents[1]
UVICORN_OPTIONS: dict[str, Any] = {
    "loop": "uvloop",
    "ws": "none",
    "lifespan": "on",
    "log_config": None,
    "access_log": False,  # the app has its own, without query strings
    "server_header": False,
    "timeout_graceful_shutdown": GRACE_S,
    "timeout_keep_alive": KEEP_ALIVE_S,
}

_log = get_logger("cli")


def serve_http(
    settings: Settings,
    *,
    overrides: dict[str, Any],
    is_reloading: bool,
    on_start: Callable[[int], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, without workers also SIGHUP.

    `overrides` are the options that made the settings: a reloaded process makes its own settings
    from them. `on_start` is called with the port once it answers, instead of printing how to connect
    clients. Raises ConfigurationError before anything is served.
    """
    require_safe_exposure(settings)
    _require_possible_workers(settings, is_reloading=is_reloading)
    require_known_tools(settings)
    settings, are_keys_new = ensure_secrets(settings)
    configure_logs(settings)
    raise_descriptor_limit()
    found = asyncio.run(_check_storage(settings))
    with (
        listen(settings.http_host, settings.http_port) as listener,
        published_address(settings, listener.getsockname()[1]),
    ):
        port = listener.getsockname()[1]
        if on_start is None:
            announce = partial(_announce, settings, port, are_keys_new)
        else:
            announce = partial(on_start, port)
        if is_reloading:
            announce()
            _serve_reloading(overrides, listener)
        elif settings.workers > 1:
            serve_with_workers(settings, found, listener, announce, make_options(settings))
        else:
            server = _Server(settings, announce, found)
            for sig in find_ending_signals():  # uvicorn does not handle SIGHUP
                signal.signal(sig, server.handle_exit)
            server.run([listener])


def _require_possible_workers(settings: Settings, *, is_reloading: bool) -> None:
    if settings.workers == 1:
        return
    if settings.is_in_memory:
        raise ConfigurationError(
            f"DATABASE_URL={settings.database_url} and WORKERS={settings.workers}: each worker would "
            "have a database of its own. Set WORKERS=1, or name a file: sqlite:///absolute/path.db"
        )
    if settings.mcp_sessions is McpSessions.STATEFUL:
        raise ConfigurationError(
            f"MCP_SESSIONS=stateful and WORKERS={settings.workers}: other workers would not find the "
            "session of a client. Set WORKERS=1 or MCP_SESSIONS=stateless."
        )
    if is_reloading:
        raise ConfigurationError("--reload cannot be combined with several workers.")


class _Server(uvicorn.Server):
    """uvicorn's server that reports its start, and whose exit code is 0 after a signal."""

    def __init__(
        self,
        settings: Settings,
        announce: Callable[[], None] | None = None,
        expected: StorageId | None = None,
    ) -> None:
        self._app = LifespanApp(settings, expected)
        super().__init__(uvicorn.Config(self._app, **make_options(settings)))
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._announce is not None:
            self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own handler raises the signal again after the shutdown, which kills the process.
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
        self._app.stop()


def make_options(settings: Settings) -> dict[str, Any]:
    """Uvicorn's options for these settings. Call it in a process with the final limit of open files."""
    return UVICORN_OPTIONS | {
        "http": partial(Connection, limits=make_limits(settings)),
        "proxy_headers": bool(settings.trusted_proxies),
        "forwarded_allow_ips": list(settings.trusted_proxies),
    }


async def _check_storage(settings: Settings) -> StorageId | None:
    """Open the storage once, to report errors before anyone connects. Return its identity: no process
    of this server may use another storage."""
    async with open_storage(settings):
        return identify_storage(settings)


def _announce(settings: Settings, port: int, are_keys_new: bool) -> None:
    if settings.log_format is LogFormat.JSON:
        _log.info("serving", **startup_facts(settings, port, are_keys_new=are_keys_new))
    else:
        banner = compose_banner(settings, port, are_keys_new=are_keys_new)
        with contextlib.suppress(OSError):  # the server runs even if its log cannot be written
            print(banner, file=sys.stderr, flush=True)


def _serve_reloading(overrides: dict[str, Any], listener: socket.socket) -> None:
    config = uvicorn.Config(
        "shared_context_server.server:LifespanApp",  # required by uvicorn; not used by the target
        log_config=None,
        reload=True,
        reload_dirs=[str(PACKAGE)],
        reload_includes=["*.py", "*.sql"],
    )
    ChangeReload(config, target=partial(_serve_reloaded, overrides), sockets=[listener]).run()


def _serve_reloaded(overrides: dict[str, Any], sockets: list[socket.socket] | None) -> None:
    """Serve in a child process of the reloader, with the current source."""
    try:
        settings, _ = ensure_secrets(load_settings(EnvironmentOwner.SERVER, **overrides))
    except ConfigurationError as exc:
        sys.exit(f"shared-context-server: {exc}")
    configure_logs(settings)
    raise_descriptor_limit()
    _Server(settings).run(sockets)
