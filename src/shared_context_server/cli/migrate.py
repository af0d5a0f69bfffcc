"""`migrate`: brings the database's schema up to date, which every start of a server does too."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from shared_context_server.cli.options import StorageOptions
from shared_context_server.storage import find_schema_status, migrate_storage


def migrate(
    options: StorageOptions = StorageOptions(),  # noqa: B008 - frozen
    *,
    check: Annotated[
        bool, Parameter(negative="", help="Change nothing; exit code 1 if something is missing.")
    ] = False,
) -> int:
    """Apply the migrations that are missing and print their names."""
    settings = options.load()
    if check:
        status = find_schema_status(settings)
        print(f"schema {status.current} of {status.latest}")
        return 0 if status.current == status.latest else 1
    applied = migrate_storage(settings)
    print("\n".join(applied) if applied else "The schema is up to date.")
    return 0
