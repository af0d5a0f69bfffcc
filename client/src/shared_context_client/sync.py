"""The sync client: runs the async client on a loop in a thread."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, TypeVar

from shared_context_client._generated.results import (
    MessageItem,
    Permission,
    TaskChanged,
    TaskOutcome,
    TokenResult,
)
from shared_context_client._generated.tools import SyncTools
from shared_context_client.batches import Batch
from shared_context_client.circuit_breaker import OnStateChange, State
from shared_context_client.client import SharedContextClient
from shared_context_client.leases import HeldLease
from shared_context_client.loop_thread import LoopThread
from shared_context_client.options import Breaker, Limits, Retries
from shared_context_client.session import Memory, Session
from shared_context_client.tasks import ClaimedTask
from shared_context_client.wire import Call, R

P = ParamSpec("P")
T = TypeVar("T")


def _documented(run: Callable[P, T], method: Callable[..., Any]) -> Callable[P, T]:
    update_wrapper(run, method)
    return run


def _blocking_memory(
    method: Callable[Concatenate[Memory, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncMemory, P], T]:
    def run(self: SyncMemory, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.loop.run(method(self.memory, *args, **kwargs))

    return _documented(run, method)


def _blocking(
    method: Callable[Concatenate[Session, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncSession, P], T]:
    def run(self: SyncSession, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.loop.run(method(self.session, *args, **kwargs))

    return _documented(run, method)


class SyncMemory:
    """Memory of one session, or server-wide."""

    def __init__(self, loop: LoopThread, memory: Memory) -> None:
        self.loop = loop
        self.memory = memory

    set = _blocking_memory(Memory.set)
    get = _blocking_memory(Memory.get)
    list = _blocking_memory(Memory.list)
    delete = _blocking_memory(Memory.delete)


class SyncClaimedTask:
    """A task that we have claimed. See ClaimedTask."""

    def __init__(self, loop: LoopThread, task: ClaimedTask) -> None:
        self._loop = loop
        self._task = task
        self.id = task.id
        self.item = task.item
        self.lease = task.lease

    def finish(self, *, outcome: TaskOutcome | None = None, result: Any = None) -> TaskChanged:
        """End the claim. See ClaimedTask.finish."""
        return self._loop.run(self._task.finish(outcome=outcome, result=result))


class SyncSession:
    """A handle for one session. Making one sends nothing."""

    def __init__(self, loop: LoopThread, session: Session) -> None:
        self.loop = loop
        self.session = session
        self.id = session.id
        self.memory = SyncMemory(loop, session.memory)

    def __repr__(self) -> str:
        return f"SyncSession({self.id!r})"

    add = _blocking(Session.add)
    messages = _blocking(Session.messages)
    wait = _blocking(Session.wait)
    search = _blocking(Session.search)
    digest = _blocking(Session.digest)
    mark_read = _blocking(Session.mark_read)
    get = _blocking(Session.get)
    close = _blocking(Session.close)
    delete = _blocking(Session.delete)
    leases = _blocking(Session.leases)
    add_task = _blocking(Session.add_task)
    claim_task = _blocking(Session.claim_task)
    finish_task = _blocking(Session.finish_task)
    tasks = _blocking(Session.tasks)

    def follow(
        self, after_seq: int | None = None, *, patience_s: float | None = None
    ) -> Generator[MessageItem]:
        """See Session.follow. To stop early, close the generator or leave the `for` loop."""
        messages = self.session.follow(after_seq, patience_s=patience_s)
        end = object()

        async def read_next() -> MessageItem | object:
            return await anext(messages, end)

        try:
            while isinstance(message := self.loop.run(read_next()), MessageItem):
                yield message
        finally:
            with suppress(RuntimeError):  # the client was closed first, which also ended the stream
                self.loop.run(messages.aclose())

    @contextmanager
    def lease(
        self,
        name: str,
        *,
        ttl_seconds: int = 60,
        wait_seconds: float = 0,
        paths: Sequence[str] | None = None,
    ) -> Iterator[HeldLease]:
        """Hold a lease for a `with` block. See Session.lease."""
        held = self.session.lease(
            name, ttl_seconds=ttl_seconds, wait_seconds=wait_seconds, paths=paths
        )
        with _entered(self.loop, held) as lease:
            yield lease

    @contextmanager
    def work(
        self, *, task_id: int | None = None, ttl_seconds: int = 60, wait_seconds: float = 0
    ) -> Iterator[SyncClaimedTask | None]:
        """Hold a task for a `with` block. See Session.work."""
        held = self.session.work(
            task_id=task_id, ttl_seconds=ttl_seconds, wait_seconds=wait_seconds
        )
        with _entered(self.loop, held) as task:
            yield None if task is None else SyncClaimedTask(self.loop, task)


class SyncSharedContextClient(SyncTools):
    """Every tool of the server as a typed method. Thread-safe.

    Close it, or use it in `with`. A forked child process has to make its own client.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        agent_id: str | None = None,
        agent_type: str | None = None,
        instance: str | None = None,
        token: str | None = None,
        retries: Retries = Retries(),  # noqa: B008 - frozen
        breaker: Breaker = Breaker(),  # noqa: B008
        limits: Limits = Limits(),  # noqa: B008
        verify: ssl.SSLContext | bool = True,
        on_state_change: OnStateChange | None = None,
    ) -> None:
        self._client = SharedContextClient(
            url,
            api_key=api_key,
            agent_id=agent_id,
            agent_type=agent_type,
            instance=instance,
            token=token,
            retries=retries,
            breaker=breaker,
            limits=limits,
            verify=verify,
            on_state_change=on_state_change,
        )
        self._loop = LoopThread()
        self.memory = SyncMemory(self._loop, self._client.memory)
        """Memory that belongs to no session."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, agent_id={self.agent_id!r})"

    def __enter__(self) -> SyncSharedContextClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections and end the thread. Calls in other threads are cancelled. May be
        called twice."""
        with suppress(RuntimeError):  # already closed
            self._loop.run(self._client.aclose())
        self._loop.close()

    @property
    def url(self) -> str:
        return self._client.url

    @property
    def agent_id(self) -> str | None:
        return self._client.agent_id

    @property
    def state(self) -> State:
        """See SharedContextClient.state."""
        return self._client.state

    def authenticate(self, *, permissions: Sequence[Permission] | None = None) -> TokenResult:
        """See SharedContextClient.authenticate."""
        return self._loop.run(self._client.authenticate(permissions=permissions))

    def take_unread(self) -> dict[str, Any] | None:
        """See SharedContextClient.take_unread."""
        return self._client.take_unread()

    def session(self, session_id: str) -> SyncSession:
        """Return a handle for one session. Sends nothing."""
        return SyncSession(self._loop, self._client.session(session_id))

    @contextmanager
    def lease(
        self,
        name: str,
        *,
        ttl_seconds: int = 60,
        wait_seconds: float = 0,
        paths: Sequence[str] | None = None,
    ) -> Iterator[HeldLease]:
        """Hold a server-wide lease for a `with` block. See Session.lease."""
        held = self._client.lease(
            name, ttl_seconds=ttl_seconds, wait_seconds=wait_seconds, paths=paths
        )
        with _entered(self._loop, held) as lease:
            yield lease

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """See SharedContextClient.batch; used with `with`."""
        batch = self._client.batch()
        yield batch
        self._loop.run(batch.send())

    def _call(self, call: Call[R]) -> R:
        return self._loop.run(self._client._call(call))


@contextmanager
def _entered(loop: LoopThread, held: AbstractAsyncContextManager[T]) -> Iterator[T]:
    async def enter() -> T:
        return await held.__aenter__()

    async def leave() -> None:
        await held.__aexit__(None, None, None)

    value = loop.run(enter())
    try:
        yield value
    finally:
        loop.run(leave())
