"""aiosqlite connections that run whole functions in their thread, through aiosqlite's public interface.

Its `execute_fetchall(sql, parameters)` hands both to the `execute` of whatever the connector has made,
and calls `fetchall` of what that returns: one thread hop. Here the connector makes an object whose
`execute` takes a function in place of SQL, so that a read of several statements costs one hop as well.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import Any, cast

import aiosqlite

Function = Callable[[sqlite3.Connection], None]

_CHUNK_ROWS = 64  # of cursors that are iterated, which nobody here does


class _Functions:
    """What aiosqlite drives in place of a sqlite3.Connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._nothing = connection.cursor()

    def execute(self, work: str | Function, parameters: Any) -> Any:
        if isinstance(work, str):  # the pool's check of a new connection
            return self._connection.execute(work, parameters)
        work(self._connection)
        return self._nothing

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def close(self) -> None:
        self._connection.close()


async def open_function_connection(
    connect: Callable[[], sqlite3.Connection],
) -> aiosqlite.Connection:
    """A connection for run_function and is_open, on what `connect` opens. Raises what that raises, and
    RuntimeError when there can be no more threads."""

    def make() -> sqlite3.Connection:
        return cast(sqlite3.Connection, _Functions(connect()))

    made: list[aiosqlite.Connection] = []
    # A thread is a daemon if the one that made it is. The connection's has to be: a program that ends
    # without closing must not hang.
    maker = threading.Thread(
        target=lambda: made.append(aiosqlite.Connection(make, _CHUNK_ROWS)), daemon=True
    )
    maker.start()
    maker.join()
    return await made[0]


async def run_function(connection: aiosqlite.Connection, function: Function) -> None:
    """Run it in the connection's thread. Raises what it raises."""
    await connection.execute_fetchall(cast(str, function))


def is_open(connection: aiosqlite.Connection) -> bool:
    """Whether it can be used; asks SQLite for nothing."""
    try:
        connection.in_transaction  # noqa: B018 - raises on a closed connection
    except (ValueError, sqlite3.ProgrammingError):
        return False
    return True
