"""The server over HTTP: one uvicorn process, several, or one that is restarted when the source
changes."""

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
from shared_context_server.cli.admission import make_caps, raise_descriptor_limit
from shared_context_server.cli.banner import compose_banner, startup_facts
from shared_context_server.cli.connections import Connection
from shared_context_server.cli.workers import serve_with_workers
from shared_context_server.clock.signals import find_ending_signals
from shared_context_server.environment import Surroundings
from shared_context_server.errors import ConfigurationError
from shared_context_server.observability.logs import configure_logs, get_logger
from shared_context_server.server import LifespanApp
from shared_context_server.settings import LogFormat, McpSessions, Settings, load_settings
from shared_context_server.storage import StorageId, identify_storage, open_storage

GRACE_S = 5  # for calls under way at a shutdown; what is acknowledged is durable in any case
# For connections between two calls: longer than the proxies and clients in use keep them (60 s and
# less). The one who closes first must not be the server: a call that is on its way is lost then, and
# a POST is not sent again by itself.
KEEP_ALIVE_S = 75
PACKAGE = Path(__file__).parents[1]
UVICORN_OPTIONS: dict[str, Any] = {
    "loop": "uvloop",
    "ws": "none",
    "lifespan": "on",
    "log_config": None,
    "access_log": False,  # the app has its own, which shows no queries
    "server_header": False,
    "timeout_graceful_shutdown": GRACE_S,
    "timeout_keep_alive": KEEP_ALIVE_S,
}

_log = get_logger("cli")


def serve_http(settings: Settings, *, overrides: dict[str, Any], is_reloading: bool) -> None:
    """Serve until SIGTERM or SIGINT; without workers SIGHUP ends it too. Raises ConfigurationError before anything is served.

    `overrides` made the settings; a reloaded process makes its own with them.
    """
    require_safe_exposure(settings)
    _require_possible_workers(settings, is_reloading=is_reloading)
    settings, are_keys_new = ensure_secrets(settings)
    configure_logs(settings)
    raise_descriptor_limit()
    found = asyncio.run(_check_storage(settings))
    with listen(settings.http_host, settings.http_port) as listener:
        announce = partial(_announce, settings, listener.getsockname()[1], are_keys_new)
        if is_reloading:
            announce()
            _serve_reloading(overrides, listener)
        elif settings.workers > 1:
            serve_with_workers(settings, found, listener, announce, make_options(settings))
        else:
            server = _Server(settings, announce, found)
            for sig in find_ending_signals():  # uvicorn leaves SIGHUP, which would kill
                signal.signal(sig, server.handle_exit)
            server.run([listener])


def _require_possible_workers(settings: Settings, *, is_reloading: bool) -> None:
    if settings.workers == 1:
        return
    if settings.mcp_sessions is McpSessions.STATEFUL:
        raise ConfigurationError(
            f"MCP_SESSIONS=stateful and WORKERS={settings.workers}: a client's session lives in one "
            "process and would not be found in the others. Use one worker, or MCP_SESSIONS=stateless."
        )
    if is_reloading:
        raise ConfigurationError("--reload is for one worker.")


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it serves, and for which ending as asked is a success."""

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
        # uvicorn's own notes the signal, and kills the process with it after the shutdown.
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
        self._app.stop()


def make_options(settings: Settings) -> dict[str, Any]:
    """How uvicorn serves with these settings; to be called in a process with their open files."""
    return UVICORN_OPTIONS | {
        "http": partial(Connection, caps=make_caps(settings)),
        "proxy_headers": bool(settings.trusted_proxies),
        "forwarded_allow_ips": list(settings.trusted_proxies),
    }


async def _check_storage(settings: Settings) -> StorageId | None:
    """Open the storage once, so that what is wrong with it is told before anybody connects; which one
    it is, so that no process of this server ever takes another."""
    async with open_storage(settings):
        return identify_storage(settings)


def _announce(settings: Settings, port: int, are_keys_new: bool) -> None:
    if settings.log_format is LogFormat.JSON:
        _log.info("serving", **startup_facts(settings, port, are_keys_new=are_keys_new))
    else:
        banner = compose_banner(settings, port, are_keys_new=are_keys_new)
        with contextlib.suppress(OSError):  # a log on a full disk is no reason not to serve
            print(banner, file=sys.stderr, flush=True)


def _serve_reloading(overrides: dict[str, Any], listener: socket.socket) -> None:
    config = uvicorn.Config(
        "shared_context_server.server:LifespanApp",  # what uvicorn asks for; the target serves it
        log_config=None,
        reload=True,
        reload_dirs=[str(PACKAGE)],
        reload_includes=["*.py", "*.sql"],
    )
    ChangeReload(config, target=partial(_serve_reloaded, overrides), sockets=[listener]).run()


def _serve_reloaded(overrides: dict[str, Any], sockets: list[socket.socket] | None) -> None:
    """The life of one child of the reloader, in a process with the source as it is now."""
    try:
        settings, _ = ensure_secrets(load_settings(Surroundings.OURS, **overrides))
    except ConfigurationError as exc:
        sys.exit(f"shared-context-server: {exc}")
    configure_logs(settings)
    raise_descriptor_limit()
    _Server(settings).run(sockets)
