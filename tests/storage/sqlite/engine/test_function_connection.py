"""Functions in the threads of aiosqlite's connections, through what aiosqlite makes public."""

from __future__ import annotations

import ast
import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from shared_context_server.storage.sqlite.engine import function_connection, readers
from shared_context_server.storage.sqlite.engine.function_connection import (
    is_open,
    open_function_connection,
    run_function,
)
from tests.storage.sqlite.conftest import Connect

PATIENCE_S = 30  # a test that waits longer than this has failed


async def test_a_function_of_several_statements_runs_in_the_connections_thread(
    open_reader: Connect,
) -> None:
    connection = await open_function_connection(open_reader)
    found: list[object] = []

    def read(sqlite: sqlite3.Connection) -> None:
        found.append(sqlite.execute("SELECT 1").fetchone())
        found.append(sqlite.execute("SELECT 2").fetchone())
        found.append(threading.current_thread())

    await run_function(connection, read)
    await run_function(connection, read)
    assert found[:2] == [(1,), (2,)]
    assert found[2] is found[5] is not threading.current_thread()
    await connection.close()


async def test_what_a_function_raises_reaches_who_runs_it(open_reader: Connect) -> None:
    connection = await open_function_connection(open_reader)

    def fail(sqlite: sqlite3.Connection) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await run_function(connection, fail)
    assert is_open(connection)
    await connection.close()


async def test_a_connection_is_open_until_it_or_what_is_under_it_is_closed(
    open_reader: Connect,
) -> None:
    beneath: list[sqlite3.Connection] = []

    def connect() -> sqlite3.Connection:
        beneath.append(open_reader())
        return beneath[-1]

    connection = await open_function_connection(connect)
    assert is_open(connection)
    beneath[0].close()
    assert not is_open(connection)
    await connection.close()
    connection = await open_function_connection(connect)
    await connection.close()
    assert not is_open(connection)


async def test_what_cannot_be_opened_is_told() -> None:
    threads: list[threading.Thread] = []

    def connect() -> sqlite3.Connection:
        threads.append(threading.current_thread())
        raise sqlite3.OperationalError("unable to open database file")

    with pytest.raises(sqlite3.OperationalError):
        await open_function_connection(connect)
    await asyncio.to_thread(threads[0].join, PATIENCE_S)  # it says so to the loop
    assert not threads[0].is_alive()


@pytest.mark.parametrize("module", [function_connection, readers])
def test_nothing_private_of_the_libraries_is_used(module: object) -> None:
    """A private name is looked up on nothing but the object itself."""
    path = getattr(module, "__file__", None)
    assert path is not None
    private = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not (isinstance(node.value, ast.Name) and node.value.id == "self")
    ]
    assert private == []
