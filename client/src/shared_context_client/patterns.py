"""Patterns for agents that work together: a shared value, a barrier, a queue of tasks.

All state is in the session: shared memory, messages, leases, tasks. Processes may come and go.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from shared_context_client._generated.errors import Conflict, MemoryNotFound
from shared_context_client._generated.results import TaskItem, TaskState
from shared_context_client.leases import HeldLease
from shared_context_client.session import Session
from shared_context_client.tasks import ClaimedTask

UNFINISHED: tuple[TaskState, ...] = ("ready", "claimed", "blocked")
FINISHED: tuple[TaskState, ...] = ("done", "failed")
READY_AT_ONCE = 20  # tasks that a worker chooses from
PAGE = 100
TITLE_CHARS = 500
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
        waited = await session.wait(after_seq=seq, timeout_seconds=LOOK_AGAIN_S)
        seq = waited.next_after_seq


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
    """A task of a queue, ours while `lease` is held."""

    id: int
    content: str
    lease: HeldLease
    _claimed: ClaimedTask

    async def complete(self, content: str, metadata: dict[str, Any] | None = None) -> None:
        """Store the result. Raises LeaseLost, and stores nothing, if the task now belongs to
        another worker."""
        await self._claimed.finish(result={"content": content, "metadata": metadata or {}})

    async def fail(self, reason: str) -> None:
        """Give the task up for all workers. Raises LeaseLost as `complete` does."""
        await self._claimed.finish(outcome="failed", result={"content": reason, "metadata": {}})


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What became of a task of a queue. `sender`: the worker that finished it."""

    task_id: int
    sender: str
    content: str
    metadata: dict[str, Any]
    is_failed: bool


class WorkQueue:
    """Tasks that several workers share. Each task gets one result, even if workers die.

    The tasks are those of the session's board (add_task, claim_task) that have the queue's name in
    their metadata. A worker takes one task at a time.
    """

    def __init__(self, session: Session, name: str, *, ttl_seconds: int = 60) -> None:
        self._session = session
        self._name = name
        self._ttl_seconds = ttl_seconds
        self._end = f"queue:{name}:end"

    async def put(
        self, content: str, *, priority: int | None = None, idempotency_key: str | None = None
    ) -> int:
        """Add a task and return its id. With an idempotency_key it is added once, even if you
        restart."""
        added = await self._session.add_task(
            content[:TITLE_CHARS],
            body=content,
            priority=priority,
            metadata={"queue": self._name},
            idempotency_key=idempotency_key,
        )
        return added.task.id

    async def close(self) -> None:
        """Declare that there are no more tasks: workers end when all are finished."""
        await self._session.memory.set(self._end, True, scope="shared")
        await self._session.add(
            f"No more tasks in {self._name}.", metadata={"queue": self._name, "kind": "end"}
        )

    async def results(self) -> dict[int, TaskResult]:
        """Wait until the queue is closed and all tasks are finished; return each task's result by
        its id."""
        while True:
            seq = await self._read_end()  # before the check, so that nothing is missed
            if await self._is_over():
                break
            await self._session.wait(after_seq=seq, timeout_seconds=LOOK_AGAIN_S)
        finished = [task for state in FINISHED for task in await self._list(state)]
        return {task.id: _to_result(task) for task in finished}

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Task | None]:
        """Take a task: `async with queue.take() as task:` waits for one and holds it during the
        block; None when the queue is closed and all is finished. A task that the block does not
        complete goes to the next worker."""
        async with AsyncExitStack() as holding:
            yield await self._claim(holding)

    async def _claim(self, holding: AsyncExitStack) -> Task | None:
        while True:
            seq = await self._read_end()
            ready = await self._list("ready", limit=READY_AT_ONCE)
            # Those of the highest priority, in any order: workers that look at once meet less.
            highest = max((task.priority for task in ready), default=0)
            first = [task for task in ready if task.priority == highest]
            for task in random.sample(first, len(first)):
                work = self._session.work(task_id=task.id, ttl_seconds=self._ttl_seconds)
                claimed = await holding.enter_async_context(work)
                if claimed is not None:
                    return Task(claimed.id, claimed.item.body, claimed.lease, claimed)
            if ready:
                continue
            if await self._is_over():
                return None
            await self._wait(seq)

    async def _is_over(self) -> bool:
        try:
            await self._session.memory.get(self._end, scope="shared")
        except MemoryNotFound:
            return False
        return not any([await self._list(state, limit=1) for state in UNFINISHED])

    async def _wait(self, seq: int) -> None:
        """Wait for a message, or until a claim may have run out: that has no message."""
        expires_at = (await self._session.tasks(limit=1)).next_expires_at
        wait_s = LOOK_AGAIN_S
        if expires_at is not None:
            wait_s = max((expires_at - datetime.now(UTC)).total_seconds(), SHORTEST_WAIT_S)
        await self._session.wait(after_seq=seq, timeout_seconds=min(wait_s, LOOK_AGAIN_S))

    async def _read_end(self) -> int:
        return (await self._session.messages(limit=1)).next_after_seq

    async def _list(self, state: TaskState, *, limit: int | None = None) -> list[TaskItem]:
        """Return the queue's tasks in this state, or the first `limit` of them."""
        found: list[TaskItem] = []
        cursor: str | None = None
        while True:
            page = await self._session.tasks(state=state, limit=PAGE, cursor=cursor)
            found += [task for task in page.tasks if task.metadata.get("queue") == self._name]
            cursor = page.next_cursor
            if cursor is None or (limit is not None and len(found) >= limit):
                return found[:limit]


def _to_result(task: TaskItem) -> TaskResult:
    result: Any = task.result
    return TaskResult(
        task_id=task.id,
        sender=task.finished_by or "",
        content=result["content"],
        metadata=result["metadata"],
        is_failed=task.state == "failed",
    )
