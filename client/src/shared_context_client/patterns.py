"""Patterns for agents that work together: a shared value, a barrier, a queue of tasks.

All state is in the session: shared memory, messages, leases. Processes may come and go.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from shared_context_client._generated.errors import Conflict, MemoryNotFound
from shared_context_client._generated.results import MessageAdded, MessageItem
from shared_context_client.errors import LeaseHeld
from shared_context_client.leases import HeldLease
from shared_context_client.session import Session

LOOK_AGAIN_S = 25.0  # in case the agent that should notify us was killed
SHORTEST_WAIT_S = 0.25  # in case our clock is ahead of the server's


async def update_memory(
    session: Session,
    key: str,
    change: Callable[[Any], Any],
    *,
    default: Any = None,
    lease: HeldLease | None = None,
) -> Any:
    """Replace the shared value by change(value), or change(default) if there is none; return the
    new value. If another agent writes meanwhile, `change` is called again with its value."""
    while True:
        try:
            found = await session.memory.get(key, scope="shared")
            value, version = change(found.value), found.version
        except MemoryNotFound:
            value, version = change(default), 0
        try:
            await session.memory.set(
                key, value, scope="shared", expected_version=version, lease=lease
            )
        except Conflict:
            continue
        return value


async def wait_until(session: Session, key: str, is_reached: Callable[[Any], bool]) -> Any:
    """Return the shared value (None: there is none) once `is_reached` is true for it.

    The value is checked after every message of the session, so whoever changes it has to add a
    message.
    """
    seq = (
        await session.messages(limit=1)
    ).next_after_seq  # before the check, so that nothing is missed
    while True:
        try:
            value = (await session.memory.get(key, scope="shared")).value
        except MemoryNotFound:
            value = None
        if is_reached(value):
            return value
        # Another agent of the same id may have changed it.
        waited = await session.wait(after_seq=seq, timeout_seconds=LOOK_AGAIN_S, include_own=True)
        seq = waited.next_after_seq or seq


class Barrier:
    """Lets no agent continue before `parties` agents have arrived. Use each name once."""

    def __init__(self, session: Session, name: str, parties: int) -> None:
        self._session = session
        self._key = f"barrier:{name}"
        self._parties = parties

    async def wait(self) -> None:
        """Arrive, and wait for the others. An agent that arrives again, also after a restart,
        counts once, by its idempotency_key."""
        await self._session.memory.set(
            self._key, 1, scope="shared", mode="increment", idempotency_key=self._key
        )
        await self._session.add(f"Arrived at {self._key}.", idempotency_key=f"{self._key}:told")
        await wait_until(self._session, self._key, lambda count: count >= self._parties)


@dataclass(frozen=True, slots=True)
class Task:
    """A task, ours while `lease` is held."""

    message: MessageItem
    lease: HeldLease
    _session: Session
    _queue: str

    async def complete(self, content: str, metadata: dict[str, Any] | None = None) -> MessageAdded:
        """Add the result as a reply to the task. Raises LeaseLost, and adds nothing, if the task
        now belongs to another worker."""
        return await self._session.add(
            content,
            metadata=(metadata or {}) | {"queue": self._queue, "kind": "result"},
            parent_message_id=self.message.id,
            lease=self.lease,
        )


class WorkQueue:
    """Tasks that several workers share. Each task gets one result, even if workers die.

    Tasks and results are messages. A worker holds a lease on the task it works on. Each worker
    needs its own WorkQueue object and agent id, and takes one task at a time.
    """

    def __init__(self, session: Session, name: str, *, ttl_seconds: int = 60) -> None:
        self._session = session
        self._name = name
        self._ttl_seconds = ttl_seconds
        self._seq = 0
        self._open: dict[int, MessageItem] = {}
        self._results: dict[int, MessageItem] = {}
        self._is_closed = False

    async def put(self, content: str, *, idempotency_key: str | None = None) -> int:
        """Add a task and return its id. With an idempotency_key it is added once, even if you
        restart."""
        metadata = {"queue": self._name, "kind": "task"}
        added = await self._session.add(content, metadata=metadata, idempotency_key=idempotency_key)
        return added.message_id

    async def close(self) -> None:
        """Declare that there are no more tasks: workers end when all are done."""
        metadata = {"queue": self._name, "kind": "end"}
        await self._session.add(f"No more tasks in {self._name}.", metadata=metadata)

    async def results(self) -> dict[int, MessageItem]:
        """Wait until the queue is closed and all tasks are done; return each task's result by its
        id."""
        await self._read()
        while not self._is_over:
            await self._session.wait(after_seq=self._seq, timeout_seconds=LOOK_AGAIN_S)
            await self._read()
        return dict(self._results)

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Task | None]:
        """Take a task: `async with queue.take() as task:` waits for a free one and holds it during
        the block; None when the queue is closed and all is done. A task that the block does not
        complete goes to the next worker."""
        async with AsyncExitStack() as holding:
            yield await self._claim(holding)

    @property
    def _is_over(self) -> bool:
        return self._is_closed and not self._open

    async def _claim(self, holding: AsyncExitStack) -> Task | None:
        await self._read()
        while not self._is_over:
            leases = (await self._session.leases()).leases
            held = {lease.name: lease.expires_at for lease in leases}
            names = {self._lease_name(task): task for task in self._open.values()}
            free = [task for name, task in names.items() if name not in held]
            for task in free:
                if (claimed := await self._try(task, holding)) is not None:
                    return claimed
            if not free:
                await self._wait([held[name] for name in names])
            await self._read()
        return None

    async def _try(self, task: MessageItem, holding: AsyncExitStack) -> Task | None:
        lease = self._session.lease(self._lease_name(task), ttl_seconds=self._ttl_seconds)
        try:
            held = await holding.enter_async_context(lease)
        except LeaseHeld:
            return None
        await self._read()  # it may have been completed before we got the lease
        if task.id in self._open:
            return Task(task, held, self._session, self._name)
        await holding.aclose()
        return None

    async def _wait(self, expiries: list[datetime]) -> None:
        """Wait for a message, or until a held task may be free: an expired lease has no event."""
        ends_in_s = [(expiry - datetime.now(UTC)).total_seconds() for expiry in expiries]
        wait_s = min(max(min(ends_in_s, default=LOOK_AGAIN_S), SHORTEST_WAIT_S), LOOK_AGAIN_S)
        await self._session.wait(after_seq=self._seq, timeout_seconds=wait_s)

    async def _read(self) -> None:
        has_more = True
        while has_more:
            page = await self._session.messages(after_seq=self._seq, limit=1000)
            for message in page.messages:
                self._note(message)
            self._seq, has_more = page.next_after_seq, page.has_more

    def _note(self, message: MessageItem) -> None:
        if message.metadata.get("queue") != self._name:
            return
        kind, task_id = message.metadata.get("kind"), message.parent_message_id
        if kind == "task":
            self._open[message.id] = message
        elif kind == "result" and task_id in self._open:
            del self._open[task_id]
            self._results[task_id] = message
        elif kind == "end":
            self._is_closed = True

    def _lease_name(self, task: MessageItem) -> str:
        return f"queue:{self._name}:{task.id}"
