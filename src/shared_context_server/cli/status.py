"""The command `status`: prints the health of the running server and its data."""

from __future__ import annotations

import os

from shared_context_server.cli.banner import without_password
from shared_context_server.cli.hub.options import AsJson
from shared_context_server.cli.options import ServerOptions
from shared_context_server.cli.probes import probe
from shared_context_server.cli.running import find_url
from shared_context_server.cli.show.values import print_json
from shared_context_server.display import show_line
from shared_context_server.errors import ConfigurationError
from shared_context_server.remote import exits
from shared_context_server.remote.access import read_address
from shared_context_server.settings import Settings
from shared_context_server.storage import find_schema_status


def status(
    options: ServerOptions = ServerOptions(),  # noqa: B008 - frozen
    *,
    as_json: AsJson = False,
) -> int:
    """Print the state of the server and its data. Exit code 0 if the server is ready, else 1."""
    settings = options.load()
    url = find_url(options, settings)
    health, ready = probe(url, "/health"), probe(url, "/ready")
    is_other = health.is_ours and _is_of_another_data_dir(options, settings)
    facts = {
        "server": f"none runs on this data dir; another one answers at {url}" if is_other else url,
        "health": show_line(health.text),
        "ready": show_line(ready.text),
        "data": str(settings.data_dir),
        "database": without_password(settings.storage_url),
        "schema": _describe_schema(settings),
    }
    is_ready = health.is_ours and ready.is_ours and not is_other
    if as_json:
        print_json({**facts, "is_ready": is_ready})
    else:
        for name, fact in facts.items():
            print(f"{name:<9} {fact}")
    return exits.DONE if is_ready else exits.FAILED


def _is_of_another_data_dir(options: ServerOptions, settings: Settings) -> bool:
    """Whether a server that answers is not known to use the data dir, which was named as the server's.

    A server notes its address in its data dir. Where it could not write it, nothing is known.
    """
    names_server = options.host is not None or options.port is not None
    if names_server or "data_dir" not in settings.model_fields_set:
        return False
    has_noted = read_address(str(settings.data_dir)) is not None
    return not has_noted and (
        not settings.data_dir.is_dir() or os.access(settings.data_dir, os.W_OK)
    )


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
