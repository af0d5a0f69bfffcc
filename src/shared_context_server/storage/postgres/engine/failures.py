"""Translate asyncpg's errors into ours, in one place."""

from __future__ import annotations

import ssl

import asyncpg

from shared_context_server.errors import InternalError, SharedContextError, Unavailable

DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # among others: none of several hosts accepts writes
    OSError,
    TimeoutError,
)
"""What asyncpg lets through when something fails."""

LOST_CONNECTION = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
"""The connection is of no use any more, or there was none."""

COLLISIONS = (
    asyncpg.UniqueViolationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.InvalidCachedStatementError,  # a migration has changed a statement's columns
)
"""Another transaction was faster; tried again, this one sees what that one wrote."""

NO_SCHEMA = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidSchemaNameError,
)
"""Somebody has removed our tables, or made the database anew: `scs migrate` makes them."""

_DEFECTS = (
    asyncpg.SyntaxOrAccessError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.DataError,
    asyncpg.InterfaceError,
)


def wrap_error(exc: BaseException) -> SharedContextError:
    """Return Unavailable for what may pass (no connection, shutting down, read-only after a
    failover, too many connections, disk full, a missing right, a time-out), and InternalError for a
    mistake of ours: SQL that does not fit the schema, a broken constraint. It has the cause that
    `raise … from exc` would set."""
    error: SharedContextError
    if isinstance(exc, NO_SCHEMA):
        error = Unavailable("The database lacks the server's tables.")
    else:
        error = InternalError("The storage failed.") if _is_defect(exc) else Unavailable()
    error.__cause__ = exc
    return error


def describe(exc: BaseException) -> str:
    """Return one line for the operator. It is empty if it could quote a user's data."""
    if isinstance(exc, asyncpg.PostgresError):
        is_ours = isinstance(exc, asyncpg.SyntaxOrAccessError) or not _is_defect(exc)
        return str(exc.args[0]) if is_ours and exc.args else ""
    if _is_defect(exc):
        return ""
    silence = "no answer in time" if isinstance(exc, TimeoutError) else ""
    return " ".join(str(exc).split()) or silence


def may_pass(exc: BaseException) -> bool:
    """Whether waiting helps to connect: the database is starting or has too many connections."""
    if isinstance(exc, ssl.SSLError):
        return isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError)
    is_wrong = isinstance(exc, asyncpg.ClientConfigurationError | asyncpg.ProtocolViolationError)
    return isinstance(exc, (*LOST_CONNECTION, asyncpg.TooManyConnectionsError)) and not is_wrong


def _is_defect(exc: BaseException) -> bool:
    if isinstance(exc, (asyncpg.InsufficientPrivilegeError, *NO_SCHEMA)):
        return False
    return isinstance(exc, _DEFECTS) and not _is_lost(exc)


def _is_lost(exc: BaseException) -> bool:
    """Whether the connection is lost. InterfaceError means that, but also an argument of the wrong
    type, which is then a ValueError or TypeError as well."""
    return isinstance(exc, asyncpg.InterfaceError) and not isinstance(exc, ValueError | TypeError)
