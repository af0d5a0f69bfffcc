"""The command `migrate`: updates the database's schema, or copies one database to another."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from typing import Annotated

from cyclopts import Parameter

from shared_context_server.cli.hub.options import AsJson
from shared_context_server.cli.moving import copy_database
from shared_context_server.cli.options import StorageOptions
from shared_context_server.cli.progress import show_working
from shared_context_server.cli.show.values import print_json
from shared_context_server.errors import ConfigurationError
from shared_context_server.storage import find_schema_status, migrate_storage


async def migrate(
    options: StorageOptions = StorageOptions(),  # noqa: B008 - frozen
    *,
    check: Annotated[
        bool, Parameter(negative="", help="Change nothing; exit code 1 if something is missing.")
    ] = False,
    from_url: Annotated[
        str | None, Parameter(name="--from", help="Copy all data from this database.")
    ] = None,
    to_url: Annotated[
        str | None, Parameter(name="--to", help="Destination; default: DATABASE_URL.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Apply the missing migrations and print their names.

    With --from: copy that database to another one and compare them. The destination must be empty
    or hold a part of this copy. Stop the servers of both first.
    """
    if from_url is not None and not check:
        source = replace(options, database_url=from_url)
        destination = replace(options, database_url=to_url or options.database_url)
        await copy_database(source.load(), destination.load(), as_json=as_json)
        return 0
    if from_url is not None or to_url is not None:
        raise ConfigurationError("--to needs --from, and --check cannot be combined with either.")
    settings = options.load()
    if check:
        status = await asyncio.to_thread(find_schema_status, settings)
        if as_json:
            print_json(asdict(status))
        else:
            print(f"schema {status.current} of {status.latest}")
        return 0 if status.current == status.latest else 1
    with show_working("Updating the schema"):
        applied = await asyncio.to_thread(migrate_storage, settings)
    if as_json:
        print_json({"applied": applied})
    else:
        print("\n".join(applied) if applied else "The schema is up to date.")
    return 0
