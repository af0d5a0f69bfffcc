"""Reads of a log's new end, shared by all who wait for it.

When a message wakes a thousand waiters, the store is asked once, or not at all where this process has
written the message itself. What is shared here is the log as it is. Each waiter applies its own rights.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from shared_context_server.auth.identity import Identity
from shared_context_server.models import Message, Session
from shared_context_server.storage import Store

READ_LIMIT = 32  # messages of one shared read; whoever is further behind reads pages of its own


@dataclass(frozen=True, slots=True)
class LogSlice:
    """A piece of a log as it is, for whoever may see which of it."""

    session: Session
    messages: list[Message]


class SharedReads:
    """The reads of one process. For the tasks of one loop."""

    def __init__(self, store: Store, identity: Identity) -> None:
        self._store = store
        self._identity = identity
        self._running: dict[tuple[str, int], asyncio.Task[LogSlice]] = {}
        # By the cursor whose next message it is.
        self._committed: dict[tuple[str, int], Message] = {}

    def keep_committed(self, message: Message) -> None:
        """Keep a message that this process has committed until the subscribers that its event has
        woken have run. To be called right after the event was published: the loop runs what is due
        in order, so the message is dropped behind the last of them. Nobody finds an old state here,
        and no more is kept than callers add in one turn of the loop.
        """
        key = (message.session_id, message.seq - 1)
        self._committed[key] = message
        asyncio.get_running_loop().call_soon(self._committed.pop, key, None)

    def find_committed(self, session_id: str, after_seq: int) -> list[Message]:
        """The messages right behind `after_seq`, without a gap, as far as they are kept."""
        found: list[Message] = []
        while message := self._committed.get((session_id, after_seq)):
            found.append(message)
            after_seq = message.seq
        return found

    async def read(self, session_id: str, after_seq: int) -> LogSlice:
        """Return what stands behind after_seq, READ_LIMIT messages at most; perhaps as of a moment
        ago. Raises SessionNotFound."""
        key = (session_id, after_seq)
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._read(session_id, after_seq))
            task.add_done_callback(lambda _: self._running.pop(key, None))
        return await asyncio.shield(task)

    async def _read(self, session_id: str, after_seq: int) -> LogSlice:
        seen: list[Session] = []
        # Beside each other: all who read ask next whether their credentials still count.
        messages, _ = await asyncio.gather(
            self._store.messages.read_log(
                session_id, after_seq=after_seq, limit=READ_LIMIT, guard=seen.append
            ),
            self._identity.refresh_state(),
        )
        # The guard may be asked more than once; the last time counts.
        return LogSlice(seen[-1], messages)
