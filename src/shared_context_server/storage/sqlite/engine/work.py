"""Decorators for the store's methods: each runs as one write, or as one read, on a connection.

A method decorated with `writes` or `reads` takes the connection as its first argument. Its callers
leave that out and await the result.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from shared_context_server.storage.sqlite.engine.readers import Readers
from shared_context_server.storage.sqlite.engine.wakeup_sockets import WakeupSockets
from shared_context_server.storage.sqlite.engine.writer import Writer

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Engine:
    """The connections to one database file. `socket_dir`: the directory of the wake-up sockets; need
    not exist."""

    writer: Writer
    readers: Readers
    socket_dir: Path
    wakeup_channels: list[WakeupSockets] = field(default_factory=list)

    async def aclose(self) -> None:
        """Finish the work under way, then close the files."""
        for channel in self.wakeup_channels:
            channel.close()
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
    """Run the function in the writer's thread and return its result once it is committed. If it
    raises, its changes are rolled back. It may then be run a second time."""

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
