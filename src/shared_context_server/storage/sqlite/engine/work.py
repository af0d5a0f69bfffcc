"""Decorators that make methods of a store out of functions on a connection: one write, or one read, each.

A method that is decorated with `writes` or `reads` takes the connection as its first argument; its
callers leave it out, and await the result.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from shared_context_server.storage.sqlite.engine.doorbells import Doorbells
from shared_context_server.storage.sqlite.engine.readers import Readers
from shared_context_server.storage.sqlite.engine.writer import Writer

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Engine:
    """What runs statements on one database file. `meeting_dir`: where the processes that serve the
    file leave their sockets; need not exist."""

    writer: Writer
    readers: Readers
    meeting_dir: Path
    bells: list[Doorbells] = field(default_factory=list)

    async def aclose(self) -> None:
        """Finish the work under way, then close the files."""
        for bell in self.bells:
            bell.close()
        try:
            await self.readers.aclose()
        finally:
            # Last, because the last connection to close folds the WAL into the database.
            await self.writer.aclose()


class Subject:
    """A base for the classes that implement the ports of the contract."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine


S = TypeVar("S", bound=Subject)


def writes(
    function: Callable[Concatenate[S, sqlite3.Connection, P], T],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Run the function in the writer's thread; return its result once it is committed. What it did
    is undone if it raises. It may be run a second time after that."""

    @wraps(function)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        return self.engine.writer.run(
            lambda connection: function(self, connection, *args, **kwargs)
        )

    return run


def reads(
    function: Callable[Concatenate[S, sqlite3.Connection, P], T],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Run the function in a reader's thread. All its statements see one snapshot."""

    @wraps(function)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        return self.engine.readers.run(
            lambda connection: function(self, connection, *args, **kwargs)
        )

    return run
