"""The command `status`: prints the health of the running server and its data."""

from __future__ import annotations

import contextlib
import http.client
import json
from urllib.parse import urlsplit

from shared_context_server.cli.banner import without_password
from shared_context_server.cli.options import ServerOptions
from shared_context_server.cli.running import find_url
from shared_context_server.display import show_line
from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings
from shared_context_server.storage import find_schema_status

TIMEOUT_S = 5.0


def status(options: ServerOptions = ServerOptions()) -> int:  # noqa: B008 - frozen
    """Print the state of the server and its data. Exit code 0 if the server is ready, else 1."""
    settings = options.load()
    url = find_url(options, settings)
    is_healthy, health = _ask(url, "/health")
    is_ready, readiness = _ask(url, "/ready")
    print(f"server    {url}")
    print(f"health    {show_line(health)}")
    print(f"ready     {show_line(readiness)}")
    print(f"data      {settings.data_dir}")
    print(f"database  {without_password(settings.storage_url)}")
    print(f"schema    {_describe_schema(settings)}")
    return 0 if is_healthy and is_ready else 1


def _ask(url: str, path: str) -> tuple[bool, str]:
    """Whether this path answers 200, and its status in words."""
    address = urlsplit(url)
    try:
        with contextlib.closing(
            http.client.HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT_S)
        ) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
    except (OSError, http.client.HTTPException, UnicodeError) as exc:
        return False, f"no answer ({exc})"
    if answer.status != http.HTTPStatus.OK:
        return False, f"{answer.status} {answer.reason}"
    return True, _describe(body)


def _describe(body: bytes) -> str:
    try:
        return str(json.loads(body)["status"])
    except (ValueError, KeyError, TypeError):
        return "answers, but not as this server does"


def _describe_schema(settings: Settings) -> str:
    try:
        schema = find_schema_status(settings)
    except ConfigurationError as exc:
        return f"unknown ({exc})"
    if schema.current == schema.latest:
        return str(schema.current)
    if schema.current == 0:
        return "none yet: the first start makes it"
    return f"{schema.current} of {schema.latest}: the next start brings it up to date"
