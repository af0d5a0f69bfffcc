"""Read the messages and the memory that the search index has not seen yet, the newest first.

Usually these are the messages of the last second. Without an index they are all messages.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from shared_context_server import policy
from shared_context_server.models import Caller, EventKind, MemoryAddress, Message, Session
from shared_context_server.search_index.progress import Progress
from shared_context_server.storage import Store
from shared_context_server.storage.contract import Changes

FIRST_READ = 2  # of a log: usually the index has them
NEXT_READ = 50
READ_STEP = 500
CHANGES_LIMIT = 500
MAX_CHANGE_READS = 4
MAX_MEMORY = 500


@dataclass(slots=True)
class Uncovered:
    """What the index of this progress does not cover, for one caller. `is_whole`: nothing is missing
    from what was read."""

    store: Store
    caller: Caller
    progress: Progress
    is_whole: bool = True
    _changes: list[Changes] = field(default_factory=list)

    async def is_set_back(self) -> bool:
        """Whether the store was set back to a state before this progress, as after a restore."""
        changes = await self.store.changes.read(self.progress.changes, CHANGES_LIMIT)
        self._changes.append(changes)
        return changes.is_set_back

    async def list_session(self, session: Session) -> AsyncGenerator[list[Message]]:
        """Yield pages of the session's messages, back to the first that the index covers."""
        covered = self.progress.changes.message_id
        before_seq, limit = session.last_seq + 1, FIRST_READ if covered else READ_STEP
        while before_seq > 1:
            page = await self.store.messages.read_log(
                session.id, after_seq=0, before_seq=before_seq, limit=limit, guard=self._guard
            )
            new = [message for message in page if message.id > covered]
            if new:
                yield [m for m in reversed(new) if policy.can_see_message(self.caller, m)]
            if len(new) < len(page) or not page:
                return
            before_seq, limit = page[0].seq, NEXT_READ if limit == FIRST_READ else READ_STEP

    async def list_everywhere(self) -> AsyncGenerator[list[Message]]:
        """Yield pages of the messages of all sessions, back to the first that the index covers."""
        covered = self.progress.changes.message_id
        end = await self.store.messages.get_newest_id()
        while end > covered:
            start = max(covered, end - READ_STEP)
            after_id, has_more, page = start, True, list[Message]()
            while has_more and after_id < end:
                news = await self.store.messages.list_new(
                    self.caller, after_id=after_id, limit=READ_STEP
                )
                page += [message for message in news.messages if message.id <= end]
                after_id, has_more = news.next_after_id, news.has_more
            # On PostgreSQL what was committed behind a gap of the ids is not listed yet.
            if after_id < end and await self._may_have_more(after_id, end):
                self.is_whole = False
            yield page[::-1]
            end = start

    async def list_memory(self) -> list[MemoryAddress]:
        """Return the addresses of the memory that was written or removed since."""
        found: dict[MemoryAddress, None] = {}
        for read in range(MAX_CHANGE_READS):
            if read == len(self._changes):
                position = self._changes[-1].position if self._changes else self.progress.changes
                self._changes.append(await self.store.changes.read(position, CHANGES_LIMIT))
            changes = self._changes[read]
            for event in changes.events:
                if event.kind is EventKind.MEMORY_CHANGED and event.name is not None:
                    address = MemoryAddress(
                        event.name, event.session_id or None, event.owner or None
                    )
                    found[address] = None
            if len(changes.events) < CHANGES_LIMIT:
                self.is_whole &= changes.is_complete and len(found) <= MAX_MEMORY
                return list(found)[-MAX_MEMORY:]
        self.is_whole = False
        return list(found)[-MAX_MEMORY:]

    async def _may_have_more(self, after_id: int, end: int) -> bool:
        """Whether a message with an id in this range may be committed."""
        ids: Sequence[int] = range(after_id + 1, min(end, after_id + READ_STEP) + 1)
        return bool(await self.store.messages.list_by_ids(self.caller, ids))

    def _guard(self, session: Session) -> None:
        policy.require_session_read(self.caller, session)
