"""The command `status`: prints the health of the running server and its data."""

from __future__ import annotations

from shared_context_server.cli.banner import without_password
from shared_context_server.cli.hub.options import AsJson
from shared_context_server.cli.options import ServerOptions
from shared_context_server.cli.probes import probe
from shared_context_server.cli.running import find_url
from shared_context_server.cli.show.values import print_json
from shared_context_server.display import show_line
from shared_context_server.errors import ConfigurationError
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
    facts = {
        "server": url,
        "health": show_line(health.text),
        "ready": show_line(ready.text),
        "data": str(settings.data_dir),
        "database": without_password(settings.storage_url),
        "schema": _describe_schema(settings),
    }
    if as_json:
        print_json({**facts, "is_ready": health.is_ours and ready.is_ours})
    else:
        for name, fact in facts.items():
            print(f"{name:<9} {fact}")
    return 0 if health.is_ours and ready.is_ours else 1


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
