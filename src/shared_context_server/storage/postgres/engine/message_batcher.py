"""Append messages in batches: messages of one session share a statement.

A session's row is locked until the commit. So its writers would wait for the disk one after the
other, each on its own connection. Here, messages that come while a statement for the session runs
go together into the next one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from cachetools import LRUCache

from shared_context_server.background_tasks import BackgroundTasks
from shared_context_server.errors import SharedContextError, Unavailable
from shared_context_server.models import Session
from shared_context_server.storage.contract import AddedMessage, NewMessage, SessionGuard
from shared_context_server.storage.postgres.engine.pool import Connection, Mode, Pool

KNOWN_SESSIONS = 10_000
MAX_MESSAGES = 100  # in one statement
MAX_CHARACTERS = 1_000_000  # of contents in one statement, unless a single message is longer


@dataclass(slots=True, eq=False)
class _Append:
    new: NewMessage
    added: asyncio.Future[AddedMessage | None] = field(default_factory=asyncio.Future)

    def fail(self, error: Exception) -> None:
        if not self.added.done():
            self.added.set_exception(error)


_Queue: TypeAlias = "deque[_Append]"

GetSession = Callable[[Connection, str], Awaitable[Session]]
AppendBatch = Callable[
    [Connection, Sequence[NewMessage], Session], Awaitable[list[AddedMessage | None]]
]
"""Adds all of them to the session in one statement; None for one of which nothing was written."""


class MessageBatcher:
    """Appends the messages of each session in the order of the calls, several in one statement."""

    def __init__(self, pool: Pool, get_session: GetSession, append_batch: AppendBatch) -> None:
        self._pool = pool
        self._get_session = get_session
        self._append_batch = append_batch
        # Sessions as first read. The transaction checks whether the status has changed since.
        self._sessions: LRUCache[str, Session] = LRUCache(KNOWN_SESSIONS)
        self._queues: dict[str, _Queue] = {}
        self._senders = BackgroundTasks("postgres-message-batcher")
        self._under_way = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._is_closed = False

    async def aclose(self) -> None:
        """Accept no more messages, and wait for those in progress."""
        self._is_closed = True
        await self._is_idle.wait()

    def forget(self, session_id: str) -> None:
        self._sessions.pop(session_id, None)

    async def add(self, new: NewMessage, guard: SessionGuard) -> AddedMessage | None:
        """Append a message and return it. Return None and write nothing if the guard objects, the
        session was closed, or the idempotency key is known. Raises SessionNotFound, and Unavailable
        when the database does not accept this message or one queued before it."""
        if self._is_closed:
            raise Unavailable("The storage is closed.")
        self._under_way += 1
        self._is_idle.clear()
        try:
            session = await self._find_session(new.session_id)
            try:
                guard(session)
            except SharedContextError:
                return None
            return await self._queue(new, session)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._is_idle.set()

    async def _find_session(self, session_id: str) -> Session:
        session = self._sessions.get(session_id)
        if session is None:
            session = await self._pool.run(
                Mode.READ, lambda connection: self._get_session(connection, session_id)
            )
            self._sessions[session_id] = session
        return session

    async def _queue(self, new: NewMessage, session: Session) -> AddedMessage | None:
        append = _Append(new)
        queue = self._queues.get(session.id)
        if queue is None:
            queue = self._queues[session.id] = deque()
            self._senders.start(self._send_all(session, queue))
        queue.append(append)
        return await append.added

    async def _send_all(self, session: Session, queue: _Queue) -> None:
        try:
            while batch := _take(queue):
                await self._send(session, queue, batch)
        finally:
            del self._queues[session.id]

    async def _send(self, session: Session, queue: _Queue, batch: list[_Append]) -> None:
        news = [append.new for append in batch]
        try:
            added = await self._pool.run(
                Mode.WRITE_ONCE,
                lambda connection: self._append_batch(connection, news, session),
            )
        except Unavailable as exc:
            # Those queued behind it would only wait as long for the same error.
            for append in (*batch, *queue):
                append.fail(exc)
            queue.clear()
        except Exception as exc:  # noqa: BLE001 - to the caller, who would wait for ever
            if len(batch) == 1:
                batch[0].fail(exc)
            else:  # nothing was written, and one message may be at fault: send each alone
                for append in batch:
                    await self._send(session, queue, [append])
        else:
            for append, result in zip(batch, added, strict=True):
                if not append.added.done():
                    append.added.set_result(result)


def _take(queue: _Queue) -> list[_Append]:
    """Remove and return the next batch, without those whose callers have left."""
    batch: list[_Append] = []
    characters = 0
    while queue and len(batch) < MAX_MESSAGES:
        if queue[0].added.done():
            queue.popleft()
            continue
        characters += len(queue[0].new.content)
        if batch and characters > MAX_CHARACTERS:
            break
        batch.append(queue.popleft())
    return batch
