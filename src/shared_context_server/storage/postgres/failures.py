"""Where asyncpg's errors become ours, once."""

from __future__ import annotations

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
)
"""Another transaction was faster; tried again, this one sees what that one wrote."""

_DEFECTS = (
    asyncpg.SyntaxOrAccessError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.DataError,
    asyncpg.InterfaceError,
)


def wrap_error(exc: BaseException) -> SharedContextError:
    """Unavailable for what may pass (no connection, shutting down, read-only after a failover, too
    many connections, disk full, time out), InternalError for what is our own mistake: SQL that does
    not fit the schema, a broken constraint. As `raise … from exc` would make it."""
    is_defect = isinstance(exc, _DEFECTS) and not _is_lost(exc)
    error = InternalError("The storage failed.") if is_defect else Unavailable()
    error.__cause__ = exc
    return error


def _is_lost(exc: BaseException) -> bool:
    """InterfaceError is both: a closed connection, and an argument of the wrong type, which is
    a ValueError or TypeError as well."""
    return isinstance(exc, asyncpg.InterfaceError) and not isinstance(exc, ValueError | TypeError)
