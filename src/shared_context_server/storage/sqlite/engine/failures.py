"""Translate SQLite's errors into ours, and log them, in one place."""

from __future__ import annotations

import sqlite3

from shared_context_server.errors import (
    InternalError,
    SharedContextError,
    StorageDamaged,
    Unavailable,
)
from shared_context_server.observability.logs import get_logger

_DEFECTS = (
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.NotSupportedError,
    sqlite3.ProgrammingError,
)
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk fails",
    sqlite3.SQLITE_READONLY: "the database cannot be written",
    sqlite3.SQLITE_CANTOPEN: "the database cannot be opened",
    sqlite3.SQLITE_BUSY: "another process keeps the database locked",
    sqlite3.SQLITE_LOCKED: "another process keeps the database locked",
    sqlite3.SQLITE_INTERRUPT: "it took too long",
    sqlite3.SQLITE_NOMEM: "the memory is full",
}
_PRIMARY_CODE = 0xFF  # of an extended result code, see https://www.sqlite.org/rescode.html

_log = get_logger("storage")


def wrap_error(exc: sqlite3.Error) -> SharedContextError:
    """Return InternalError for a mistake of ours: SQL that does not fit the schema, a broken
    constraint. Otherwise return storage_error."""
    if isinstance(exc, _DEFECTS) or _code(exc) == sqlite3.SQLITE_ERROR:
        _log_failure("a defect", error=repr(exc))
        error = InternalError("The storage failed.")
        error.__cause__ = exc
        return error
    return storage_error(exc)


def storage_error(exc: BaseException) -> SharedContextError:
    """Return Unavailable for what may pass (locked, disk full, read-only, I/O), and StorageDamaged
    for the rest. It has the cause that `raise … from exc` would set, for a caller in another thread
    or task."""
    error: SharedContextError
    if isinstance(exc, SharedContextError):
        error = exc
    elif _code(exc) in _DAMAGED:
        _report("the database is damaged", exc)
        error = StorageDamaged()
    else:
        reason = _REASONS.get(_code(exc))
        _report(reason or "unknown", exc)
        error = Unavailable(f"The storage does not answer: {reason}.") if reason else Unavailable()
    error.__cause__ = None if error is exc else exc
    return error


def too_late() -> Unavailable:
    """Return the error for a call that has waited too long."""
    _log_failure("it does not answer in time")
    return Unavailable("The storage does not answer in time.")


def not_in_place(message: str, path: str) -> Unavailable:
    """Return the error for a call to a database whose files were moved, replaced or removed."""
    _log_failure(message, path=path)
    return Unavailable(f"{message} The server has to be restarted.")


def is_locked(exc: BaseException) -> bool:
    return _code(exc) in _BUSY


def _report(reason: str, exc: BaseException) -> None:
    name = getattr(exc, "sqlite_errorname", type(exc).__name__)
    _log_failure(reason, error=str(exc), sqlite=name)


def _log_failure(reason: str, **facts: str) -> None:
    """Log the failure, at most once a minute for each reason."""
    _log.error("storage failed", reason=reason, throttle=reason, **facts)


def _code(exc: BaseException) -> int:
    # Only errors from SQLite itself have a code.
    return getattr(exc, "sqlite_errorcode", 0) & _PRIMARY_CODE
