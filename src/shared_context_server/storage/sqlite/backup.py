"""Back up the whole database to a file while servers use it, and restore such a file.

VACUUM INTO reads one snapshot and writes the copy in one pass. SQLite's online backup starts again
each time another process commits, so with steady writes it never ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import filelock

from shared_context_server.errors import ConfigurationError, CopyError
from shared_context_server.settings import Settings
from shared_context_server.storage.backends import Restored
from shared_context_server.storage.migrations import SchemaStatus, load_migrations
from shared_context_server.storage.sqlite.engine.connections import database_path, open_connection
from shared_context_server.storage.sqlite.engine.migrations import MIGRATIONS_DIR, read_status
from shared_context_server.storage.sqlite.engine.opened_file import companions

# The lock bytes of a database. In WAL mode every open connection holds a shared lock on some of them.
# They begin with PENDING_BYTE of https://www.sqlite.org/fileformat2.html
_LOCK_START, _LOCK_LENGTH = 0x40000000, 512
_START_WAIT_S = 5.0  # for another start, migration or restore


def back_up_sqlite(settings: Settings, destination: Path, *, force: bool) -> int:
    """Write a checked copy of the database, mode 0600, in one file; return its size in bytes.

    The file gets its name only when it is complete. Raises ConfigurationError if there is no
    database or the file exists, unless `force`, and CopyError if the copy cannot be written or is
    damaged.
    """
    path = database_path(settings)
    if not path.is_file():
        raise ConfigurationError(f"There is no database at {path}.")
    if destination.exists() and not force:
        raise ConfigurationError(f"{destination} exists; name another file, or use --force.")
    with _partial_file(destination) as partial:
        try:
            with contextlib.closing(open_connection(path, settings, query_only=False)) as source:
                source.execute("VACUUM INTO ?", (str(partial),))
            check_database(partial)
        except sqlite3.Error as exc:
            raise CopyError(f"The database {path} cannot be copied: {exc}.") from exc
        size = partial.stat().st_size
        _name(partial, destination, force=force)
    return size


def restore_sqlite(settings: Settings, source: Path) -> Restored:
    """Replace the database with this file. The old database is kept next to it under a dated name.

    Raises ConfigurationError, having changed nothing: the file is damaged, not of this program or
    newer than it, or a process has the database open. Raises CopyError if the disk fails.
    """
    path = database_path(settings)
    if not source.is_file():
        raise ConfigurationError(f"{source} is not a file.")
    if path.exists() and path.samefile(source):
        raise ConfigurationError(f"{source} is the database itself.")
    _refuse_unfolded(source)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _fold_log(path, settings)
    with _alone(path), _partial_file(path) as partial:
        try:
            shutil.copyfile(source, partial)
            schema = check_database(partial, name=source.name)
        except OSError as exc:
            raise CopyError(f"{source} cannot be copied to {path.parent}: {exc.strerror}.") from exc
        aside = _set_aside(path)
        _name(partial, path, force=True)
    return Restored(schema, aside)


def check_database(path: Path, *, name: str = "") -> SchemaStatus:
    """Return the schema's version of a file that nobody writes to. Raises ConfigurationError, which
    names `name` or the file, if it is not a database of this program, has a newer schema, or is
    damaged."""
    name = name or path.name
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            status = read_status(connection, load_migrations(MIGRATIONS_DIR))
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as exc:
        raise ConfigurationError(f"{name} is not a valid SQLite database: {exc}.") from exc
    if status.current == 0:
        raise ConfigurationError(f"{name} is a database of another program.")
    if found != "ok":
        raise ConfigurationError(f"{name} is damaged: {' '.join(found.split())}.")
    return status


@contextlib.contextmanager
def _partial_file(destination: Path) -> Iterator[Path]:
    """Open a new file (0600) in the same directory. It is removed unless it was renamed."""
    try:
        descriptor, name = tempfile.mkstemp(
            prefix=f".{destination.name}.", suffix=".partial", dir=destination.absolute().parent
        )
    except OSError as exc:
        raise ConfigurationError(f"{destination} cannot be written: {exc.strerror}.") from exc
    os.close(descriptor)
    partial = Path(name)
    try:
        yield partial
    finally:
        for path in (partial, Path(f"{name}-journal"), *companions(partial)):
            path.unlink(missing_ok=True)


def _name(partial: Path, destination: Path, *, force: bool) -> None:
    """Rename the file to its final name once it is on the disk."""
    try:
        _sync(partial)
        if force:
            partial.replace(destination)
        else:
            try:
                destination.hardlink_to(partial)  # fails if the name was taken meanwhile
            except FileExistsError as exc:
                raise ConfigurationError(f"{destination} exists; name another file.") from exc
            except OSError:  # a file system without hard links
                partial.replace(destination)
        _sync(destination.absolute().parent)
    except OSError as exc:
        raise CopyError(f"{destination} cannot be written: {exc.strerror}.") from exc


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_unfolded(source: Path) -> None:
    log = companions(source)[0]
    if log.exists() and log.stat().st_size:
        raise ConfigurationError(
            f"{source} has a log next to it ({log.name}): it is a database in use, or one that was "
            "copied without its log. Make the copy with `scs backup`."
        )


def _fold_log(path: Path, settings: Settings) -> None:
    """Let SQLite move the log into the database, as it does when the last connection closes. Then
    there is one file to rename. A damaged database is renamed with its log."""
    if path.exists():
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(open_connection(path, settings, query_only=False)) as connection,
        ):
            connection.execute("SELECT 1 FROM sqlite_schema").fetchone()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock that keeps other processes from opening the database. Raises ConfigurationError
    if one has it open."""
    busy = f"A process has {path} open: stop all servers, stdio processes and commands that use it."
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(
                filelock.FileLock(f"{path}.lock", timeout=_START_WAIT_S, mode=0o600)
            )
            if path.exists():
                file = stack.enter_context(path.open("r+b"))
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCK_LENGTH, _LOCK_START)
                except OSError as exc:
                    raise ConfigurationError(busy) from exc
            yield
    except filelock.Timeout as exc:
        raise ConfigurationError(busy) from exc


def _set_aside(path: Path) -> Path | None:
    """Rename the database, and its log if that could not be moved into it."""
    if not path.exists():
        for companion in companions(path):
            companion.unlink(missing_ok=True)  # useless without their database
        return None
    aside = path.with_name(f"{path.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    if aside.exists():
        raise ConfigurationError(f"{aside} exists; try again in a second.")
    for ours, theirs in zip([path, *companions(path)], [aside, *companions(aside)], strict=True):
        with contextlib.suppress(FileNotFoundError):
            ours.rename(theirs)
    return aside
