"""Run whole functions in the thread of an aiosqlite connection, through its public interface.

aiosqlite's `execute_fetchall(sql, parameters)` passes both to `execute` of the object that its
connector made, and calls `fetchall` of the result, in one thread hop. Our connector makes an object
whose `execute` takes a function instead of SQL. So a read of several statements costs one hop too.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import Any, cast

import aiosqlite

Function = Callable[[sqlite3.Connection], None]

_CHUNK_ROWS = 64  # for iterated cursors, which are not used here


class _Functions:
    """What aiosqlite uses in place of a sqlite3.Connection."""

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
    """Open a connection for run_function and is_open, on what `connect` opens. Raises what
    `connect` raises, and RuntimeError when no more threads can be started."""

    def make() -> sqlite3.Connection:
        return cast(sqlite3.Connection, _Functions(connect()))

    made: list[aiosqlite.Connection] = []
    # A thread inherits being a daemon. The connection's has to be one: a program that ends
    # without closing must not hang.
    maker = threading.Thread(
        target=lambda: made.append(aiosqlite.Connection(make, _CHUNK_ROWS)), daemon=True
    )
    maker.start()
    maker.join()
    return await made[0]


async def run_function(connection: aiosqlite.Connection, function: Function) -> None:
    """Run the function in the connection's thread. Raises what the function raises."""
    await connection.execute_fetchall(cast(str, function))


def is_open(connection: aiosqlite.Connection) -> bool:
    """Whether the connection can be used. Does not call SQLite."""
    try:
        connection.in_transaction  # noqa: B018 - raises on a closed connection
    except (ValueError, sqlite3.ProgrammingError):
        return False
    return True
