"""Refuses a data dir without a database, for commands that use what a server has made there."""

from __future__ import annotations

from shared_context_server.cli.banner import without_password
from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings
from shared_context_server.storage import find_schema_status


def require_database(settings: Settings, consequence: str) -> None:
    """Raise ConfigurationError if there is no database, or this process cannot reach it. Makes
    nothing. `consequence`: the second half of a sentence, what follows for the command."""
    if find_schema_status(settings).current == 0:
        raise ConfigurationError(
            f"There is no database at {without_password(settings.storage_url)}, {consequence}. "
            "Name another one with --data-dir or --database-url; the first start of serve creates it."
        )
