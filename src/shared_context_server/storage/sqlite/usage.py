"""Compare the counters of a database file with what is stored, and mend them, while servers use it."""

from __future__ import annotations

import contextlib
import sqlite3

from shared_context_server.errors import ConfigurationError
from shared_context_server.settings import Settings
from shared_context_server.storage.contract import Miscount
from shared_context_server.storage.rules.usage import compare_counters, find_statements
from shared_context_server.storage.sqlite.engine.connections import database_path, open_connection

# octet_length() is newer than the oldest SQLite that is supported.
_COMPARE = compare_counters("length(CAST({} AS BLOB))".format)


def recount_sqlite(settings: Settings, *, mends: bool) -> list[Miscount]:
    """Find the counters that are wrong. Only their mending takes the write lock."""
    path = database_path(settings)
    try:
        connection = open_connection(path, settings, query_only=not mends)
        with contextlib.closing(connection):
            found = [Miscount(*row) for row in connection.execute(_COMPARE)]
            if mends and found:
                _mend(connection, found)
    except sqlite3.Error as exc:
        raise ConfigurationError(f"The database {path} cannot be read: {exc}.") from exc
    return found


def _mend(connection: sqlite3.Connection, found: list[Miscount]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for miscount in found:
        for statement in find_statements(miscount):
            connection.execute(statement, miscount._asdict())
    connection.execute("COMMIT")
