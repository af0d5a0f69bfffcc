"""Share reads of the newest messages of a session among all its waiters.

When a message wakes a thousand waiters, the store is read once, or not at all if this process wrote
the message. The shared result is not filtered: each waiter applies its caller's rights.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from shared_context_server.auth.identity import Identity
from shared_context_server.models import Message, Session
from shared_context_server.storage import Store

READ_LIMIT = 32  # messages of one shared read; a reader further behind reads pages of its own


@dataclass(frozen=True, slots=True)
class LogSlice:
    """A part of a session's log, not filtered by visibility."""

    session: Session
    messages: list[Message]


class SharedReads:
    """The shared reads of one process. For the tasks of one loop."""

    def __init__(self, store: Store, identity: Identity) -> None:
        self._store = store
        self._identity = identity
        self._running: dict[tuple[str, int], asyncio.Task[LogSlice]] = {}
        # Each message by the cursor just before it.
        self._committed: dict[tuple[str, int], Message] = {}

    def keep_committed(self, message: Message) -> None:
        """Keep a message that this process has committed until the subscribers woken by its event
        have run.

        Call it right after publishing the event: the loop runs callbacks in order, so the message
        is dropped after the last subscriber. So no old state is found here, and no more is kept
        than callers add in one turn of the loop.
        """
        key = (message.session_id, message.seq - 1)
        self._committed[key] = message
        asyncio.get_running_loop().call_soon(self._committed.pop, key, None)

    def find_committed(self, session_id: str, after_seq: int) -> list[Message]:
        """Return the kept messages that follow `after_seq` without a gap."""
        found: list[Message] = []
        while message := self._committed.get((session_id, after_seq)):
            found.append(message)
            after_seq = message.seq
        return found

    async def read(self, session_id: str, after_seq: int) -> LogSlice:
        """Return up to READ_LIMIT messages after after_seq; the result may be a moment old. Raises
        SessionNotFound."""
        key = (session_id, after_seq)
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._read(session_id, after_seq))
            task.add_done_callback(lambda _: self._running.pop(key, None))
        return await asyncio.shield(task)

    async def _read(self, session_id: str, after_seq: int) -> LogSlice:
        seen: list[Session] = []
        # At the same time, because all readers next check their credentials.
        messages, _ = await asyncio.gather(
            self._store.messages.read_log(
                session_id, after_seq=after_seq, limit=READ_LIMIT, guard=seen.append
            ),
            self._identity.refresh_state(),
        )
        # The guard may be called more than once; the last call counts.
        return LogSlice(seen[-1], messages)
