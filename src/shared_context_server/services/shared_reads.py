"""Reads of a log's new end that many share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from shared_context_server.models import Message, Session
from shared_context_server.storage import Store

READ_STEP = 500


@dataclass(frozen=True, slots=True)
class LogSlice:
    """A piece of a log as it is, for whoever may see which of it."""

    session: Session
    messages: list[Message]


class SharedReads:
    """Reads of new messages that many waiters of a session share: when a message wakes a thousand
    of them, the store is asked once. Each still goes by its own rights."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._running: dict[tuple[str, int], asyncio.Task[LogSlice]] = {}

    async def read(self, session_id: str, after_seq: int) -> LogSlice:
        """What stands behind after_seq, READ_STEP messages at most; perhaps as of a moment ago."""
        key = (session_id, after_seq)
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._read(session_id, after_seq))
            task.add_done_callback(lambda _: self._running.pop(key, None))
        return await asyncio.shield(task)

    async def _read(self, session_id: str, after_seq: int) -> LogSlice:
        seen: list[Session] = []
        messages = await self._store.messages.read_log(
            session_id, after_seq=after_seq, limit=READ_STEP, guard=seen.append
        )
        return LogSlice(seen[0], messages)
