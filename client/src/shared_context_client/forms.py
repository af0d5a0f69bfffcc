"""The four forms of a tool's method: async, blocking, in a batch, in an outbox.

`Calls` describes each tool once, as a method that makes the call and sends nothing. A form is a
decorator that turns such a method into one of its own class: the arguments stay the same, also for
type checkers, and what is returned differs.
"""

from __future__ import annotations

import inspect
from asyncio import Future
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar, get_args

from shared_context_client._generated.calls import Calls
from shared_context_client.batch_item import BatchItem
from shared_context_client.wire import Call, Record

P = ParamSpec("P")
R = TypeVar("R", bound=Record)
F = TypeVar("F", bound=Callable[..., Any])

_CALLS = Calls()


class AsyncForm:
    """Sends a call; its methods are coroutines that return the result."""

    async def _call(self, call: Call[R]) -> R:
        raise NotImplementedError


class SyncForm:
    """Sends a call and returns its result."""

    def _call(self, call: Call[R]) -> R:
        raise NotImplementedError


class BatchForm:
    """Adds a call to a batch."""

    def _call(self, call: Call[R]) -> BatchItem[R]:
        raise NotImplementedError


class OutboxForm:
    """Adds a call to an outbox."""

    def _call(self, call: Call[R]) -> Future[R]:
        raise NotImplementedError


def awaited(
    describe: Callable[Concatenate[Calls, P], Call[R]],
) -> Callable[Concatenate[AsyncForm, P], Coroutine[Any, Any, R]]:
    """Turn the method into a coroutine function."""

    async def method(self: AsyncForm, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._call(describe(_CALLS, *args, **kwargs))

    return _present(method, describe)


def blocking(
    describe: Callable[Concatenate[Calls, P], Call[R]],
) -> Callable[Concatenate[SyncForm, P], R]:
    """Turn the method into one that waits for the answer."""

    def method(self: SyncForm, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._call(describe(_CALLS, *args, **kwargs))

    return _present(method, describe)


def batched(
    describe: Callable[Concatenate[Calls, P], Call[R]],
) -> Callable[Concatenate[BatchForm, P], BatchItem[R]]:
    """Turn the method into one that returns a batch item."""

    def method(self: BatchForm, /, *args: P.args, **kwargs: P.kwargs) -> BatchItem[R]:
        return self._call(describe(_CALLS, *args, **kwargs))

    return _present(method, describe, BatchItem)


def queued(
    describe: Callable[Concatenate[Calls, P], Call[R]],
) -> Callable[Concatenate[OutboxForm, P], Future[R]]:
    """Turn the method into one that returns a future."""

    def method(self: OutboxForm, /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        return self._call(describe(_CALLS, *args, **kwargs))

    return _present(method, describe, Future)


def _present(method: F, describe: Callable[..., Any], container: Any = None) -> F:
    """Give the method the name, docstring and signature that `inspect` and `help` show.

    Agent frameworks build tools from these, so the signature has to name the return type: the
    result, or a `container` of it.
    """
    annotations = dict(describe.__annotations__)
    (result,) = get_args(annotations["return"])
    returned = result if container is None else container[result]
    annotations["return"] = returned
    method.__name__ = describe.__name__
    method.__qualname__ = describe.__qualname__
    method.__doc__ = describe.__doc__
    method.__annotations__ = annotations
    signature = inspect.signature(describe).replace(return_annotation=returned)
    vars(method)["__signature__"] = signature
    return method
