"""Where SQLite's errors become ours, once."""

from __future__ import annotations

import sqlite3

from shared_context_server.errors import InternalError, SharedContextError, Unavailable

_DEFECTS = (
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.NotSupportedError,
    sqlite3.ProgrammingError,
)


def wrap_error(exc: sqlite3.Error) -> SharedContextError:
    """Unavailable for what may pass (locked, disk full, read-only, I/O), InternalError for what is
    our own mistake: SQL that does not fit the schema, a broken constraint.
    """
    code = getattr(exc, "sqlite_errorcode", None)  # only SQLite's own errors have it
    if isinstance(exc, _DEFECTS) or code == sqlite3.SQLITE_ERROR:
        error = InternalError("The storage failed.")
        error.__cause__ = exc
        return error
    return unavailable(exc)


def unavailable(exc: BaseException) -> Unavailable:
    """As `raise Unavailable from exc` would make it, for one who waits in another thread or task."""
    error = Unavailable()
    error.__cause__ = exc
    return error
