"""Translate the errors of asyncpg into ours, in one place."""

from __future__ import annotations

import ssl

import asyncpg

from shared_context_server.errors import InternalError, SharedContextError, Unavailable

DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # of several hosts none takes writes, among others
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
    asyncpg.InvalidCachedStatementError,  # a migration has changed what a statement gives
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
    """Unavailable for what may pass (no connection, shutting down, read-only after a failover, too
    many connections, disk full, a right that is missing, time out), InternalError for what is our
    own mistake: SQL that does not fit the schema, a broken constraint. As `raise … from exc` would
    make it."""
    error: SharedContextError
    if isinstance(exc, NO_SCHEMA):
        error = Unavailable("The database lacks the server's tables.")
    else:
        error = InternalError("The storage failed.") if _is_defect(exc) else Unavailable()
    error.__cause__ = exc
    return error


def describe(exc: BaseException) -> str:
    """In one line what to tell whoever runs the server. Empty where it could quote what somebody
    has written."""
    if isinstance(exc, asyncpg.PostgresError):
        is_ours = isinstance(exc, asyncpg.SyntaxOrAccessError) or not _is_defect(exc)
        return str(exc.args[0]) if is_ours and exc.args else ""
    if _is_defect(exc):
        return ""
    silence = "no answer in time" if isinstance(exc, TimeoutError) else ""
    return " ".join(str(exc).split()) or silence


def may_pass(exc: BaseException) -> bool:
    """Whether waiting helps who cannot connect: the database is starting, or full of others."""
    if isinstance(exc, ssl.SSLError):
        return isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError)
    is_wrong = isinstance(exc, asyncpg.ClientConfigurationError | asyncpg.ProtocolViolationError)
    return isinstance(exc, (*LOST_CONNECTION, asyncpg.TooManyConnectionsError)) and not is_wrong


def _is_defect(exc: BaseException) -> bool:
    if isinstance(exc, (asyncpg.InsufficientPrivilegeError, *NO_SCHEMA)):
        return False
    return isinstance(exc, _DEFECTS) and not _is_lost(exc)


def _is_lost(exc: BaseException) -> bool:
    """InterfaceError is both: a closed connection, and an argument of the wrong type, which is
    a ValueError or TypeError as well."""
    return isinstance(exc, asyncpg.InterfaceError) and not isinstance(exc, ValueError | TypeError)
