"""The command `ui`: opens the dashboard signed in."""

from __future__ import annotations

import socket
import sys
import webbrowser
from typing import Annotated
from urllib.parse import urlsplit

from cyclopts import Parameter

from shared_context_server.auth.identity import Identity
from shared_context_server.auth.local_clients import connect_local_client
from shared_context_server.auth.middleware.paths import UI_PATH
from shared_context_server.auth.sign_in_links import issue_code
from shared_context_server.cli.existing_data import require_database
from shared_context_server.cli.options import ServerOptions, load_secrets
from shared_context_server.cli.running import find_url
from shared_context_server.display import show_printable
from shared_context_server.errors import ConfigurationError
from shared_context_server.storage import open_storage

CONNECT_TIMEOUT_S = 2.0
AGENT_TYPE = "human"


async def ui(
    options: ServerOptions = ServerOptions(),  # noqa: B008 - frozen
    *,
    agent_id: Annotated[
        str, Parameter(help="The name under which you look and post.")
    ] = "overseer",
    url: Annotated[
        str | None, Parameter(help="Address of the server, if it is not the one of the data dir.")
    ] = None,
    opens: Annotated[
        bool, Parameter(name="--open", negative="--no-open", help="Open the link in a browser.")
    ] = True,
) -> None:
    """Print a link that signs you in to the dashboard as an admin, and open it in a browser.

    The link works once, within two minutes. It is made with the keys of the data dir, so only who can
    read those can make one.
    """
    settings = options.load()
    require_database(settings, "so no server can take a link of it")
    settings = load_secrets(settings)
    base = (url or find_url(options, settings)).rstrip("/")
    if urlsplit(base).scheme not in ("http", "https") or not urlsplit(base).hostname:
        raise ConfigurationError(
            f"--url: {base!r} is not an address such as http://127.0.0.1:23456."
        )
    async with open_storage(settings) as store:
        identity = Identity(store, settings)
        connection = await connect_local_client(
            identity,
            agent_id=agent_id,
            agent_type=AGENT_TYPE,
            is_admin=True,
            fields=("--agent-id", "agent type"),
        )
        if connection.refused is not None:
            raise connection.refused
        code = await issue_code(store, connection.caller)
    link = f"{base}{UI_PATH}/login?code={code}"
    print(link, flush=True)
    if not _answers(base):
        print(
            f"No server answers at {show_printable(base)}. Start one with `shared-context-server "
            "serve`, or name its address with --url.",
            file=sys.stderr,
        )
    elif opens and sys.stdout.isatty():
        webbrowser.open(link)


def _answers(base: str) -> bool:
    """Whether something listens at this address."""
    parts = urlsplit(base)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False
