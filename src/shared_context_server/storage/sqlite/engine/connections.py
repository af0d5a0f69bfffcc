"""Open SQLite connections: resolve the path, set file permissions and PRAGMAs."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from shared_context_server.errors import ConfigurationError
from shared_context_server.private_files import require_own_directory, require_private_file
from shared_context_server.settings import Settings

T = TypeVar("T")

_SCHEME = "sqlite:///"
_KIB_PER_MIB = 1024
_BYTES_PER_MIB = 1024 * 1024
_CACHED_STATEMENTS = 256  # more than the statements we have, so that none is compiled twice
_WAL_SIZE_LIMIT = 64 * _BYTES_PER_MIB  # a WAL that a long read made grow shrinks to this afterwards
_ANALYSIS_LIMIT = 400  # rows PRAGMA optimize looks at in an index, as SQLite's manual advises


def database_path(settings: Settings) -> Path:
    """Return the file that `sqlite:///…` names: absolute, unless it starts with `.` or `~`.

    `sqlite:///srv/x.db` and `sqlite:////srv/x.db` are the same file. Raises ConfigurationError.
    """
    url = settings.storage_url
    if settings.is_in_memory:
        raise ConfigurationError(
            f"DATABASE_URL: the database {url} is inside the process that serves it, where no other "
            "command can reach it. Give the server a file: sqlite:///absolute/path.db"
        )
    name = url.removeprefix(_SCHEME)
    if name == url or not name.strip("/"):
        raise ConfigurationError(
            f"DATABASE_URL: {url!r} does not name a file; write sqlite:///absolute/path.db"
        )
    try:
        path = Path(name).expanduser() if name[0] in ".~" else Path("/" + name.lstrip("/"))
        return path.absolute()
    except (RuntimeError, FileNotFoundError) as exc:
        raise ConfigurationError(
            f"DATABASE_URL: {url!r}: there is no such user, or the working directory has been removed."
        ) from exc


def is_filled(path: Path) -> bool:
    """Whether the file exists and is not empty. Raises ConfigurationError if that cannot be found
    out."""
    try:
        return path.stat().st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as exc:
        raise ConfigurationError(f"The database {path} cannot be opened: {exc.strerror}.") from exc


def make_private_file(path: Path, settings: Settings) -> None:
    """Create the file (0600) and its directory (0700) if missing, and remove the rights of others
    from existing ones. SQLite gives new WAL and shared-memory files the rights of the database.

    Raises ConfigurationError, also if the file or the data dir belongs to another user, or if the
    path names a device.
    """
    try:
        if path.exists() and not path.is_file():
            raise ConfigurationError(f"The database {path} is not a file.")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent == settings.data_dir:
            require_own_directory(path.parent)
        path.touch(mode=0o600, exist_ok=True)
    except OSError as exc:
        raise ConfigurationError(f"The database {path} cannot be created: {exc.strerror}.") from exc
    for suffix in ("", "-wal", "-shm"):
        require_private_file(path.with_name(path.name + suffix))


def open_connection(path: Path, settings: Settings, *, query_only: bool) -> sqlite3.Connection:
    """Open an existing file in autocommit mode. One thread at a time may use the connection.

    Raises sqlite3.Error.
    """
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=rw",  # never creates: a missing database is an error
        uri=True,
        timeout=settings.sqlite_busy_timeout_ms / 1000,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_CACHED_STATEMENTS,
    )
    try:
        for name, value in _pragmas(settings, query_only=query_only).items():
            connection.execute(f"PRAGMA {name} = {value}")  # PRAGMAs take no parameters
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _pragmas(settings: Settings, *, query_only: bool) -> dict[str, int | str]:
    return {
        "foreign_keys": "ON",
        "synchronous": settings.sqlite_synchronous.value,
        "cache_size": -settings.sqlite_cache_mb * _KIB_PER_MIB,  # negative: KiB, not pages
        "mmap_size": settings.sqlite_mmap_mb * _BYTES_PER_MIB,
        "temp_store": "MEMORY",
        "journal_size_limit": _WAL_SIZE_LIMIT,
        # ON would overwrite every page that a deleted session frees.
        "secure_delete": "FAST",
        "analysis_limit": _ANALYSIS_LIMIT,
        "query_only": "ON" if query_only else "OFF",
    }


def optimize(connection: sqlite3.Connection) -> None:
    """Let SQLite refresh its statistics. This is optional: a locked database is left as it is."""
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA optimize = 0x10002")


def read_snapshot(connection: sqlite3.Connection, read: Callable[[sqlite3.Connection], T]) -> T:
    """Return the result of `read`, whose statements all see one snapshot."""
    connection.execute("BEGIN")
    try:
        return read(connection)
    finally:
        # After an error of the disk SQLite may have ended the transaction by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
