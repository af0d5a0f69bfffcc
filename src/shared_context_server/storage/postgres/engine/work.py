"""Decorators for the store's methods: each runs as one unit of work on a connection.

A method decorated with `writes`, `reads` or `reads_snapshot` takes the connection as its first
argument. Its callers leave that out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from shared_context_server.settings import Settings
from shared_context_server.storage.postgres.engine.message_batcher import MessageBatcher
from shared_context_server.storage.postgres.engine.notifications import NotifyChannel
from shared_context_server.storage.postgres.engine.pool import Connection, Mode, Pool

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Engine:
    """The connections to one database."""

    pool: Pool
    batcher: MessageBatcher
    settings: Settings
    wakeup_channels: list[NotifyChannel] = field(default_factory=list)

    async def aclose(self) -> None:
        """Finish the work under way, then close the connections."""
        self.pool.begin_closing()
        for channel in self.wakeup_channels:
            await channel.aclose()
        await self.batcher.aclose()
        await self.pool.aclose()


class Subject:
    """A base for the classes that implement the ports of the contract."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine


S = TypeVar("S", bound=Subject)

Function = Callable[Concatenate[S, Connection, P], Awaitable[T]]
Method = Callable[Concatenate[S, P], Coroutine[Any, Any, T]]


def _run_as(mode: Mode, function: Function[S, P, T]) -> Method[S, P, T]:
    @wraps(function)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        return self.engine.pool.run(
            mode, lambda connection: function(self, connection, *args, **kwargs)
        )

    return run


def writes(function: Function[S, P, T]) -> Method[S, P, T]:
    """Run the function in a transaction. It is run again after a conflict with another one."""
    return _run_as(Mode.WRITE, function)


def reads(function: Function[S, P, T]) -> Method[S, P, T]:
    """Run the function without a transaction. Its statements only read. Each sees what is committed
    when it begins."""
    return _run_as(Mode.READ, function)


def reads_snapshot(function: Function[S, P, T]) -> Method[S, P, T]:
    """Run the function in a read transaction: all its statements see the same snapshot."""
    return _run_as(Mode.SNAPSHOT, function)
