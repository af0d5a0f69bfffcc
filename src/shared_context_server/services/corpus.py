"""Index the texts of sessions in memory, for search.

The log of a session is kept in blocks. Each block is a range of the log with its texts indexed. The
newest block grows with the log; messages never change. Older blocks are read backwards when a
search needs them. Messages are kept without content and metadata, which are read from the store for
the hits.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import chain
from typing import Any

from pydantic import JsonValue

from shared_context_server.models import JsonObject, Message, Session, Visibility
from shared_context_server.services.slices import Work, run_in_slices
from shared_context_server.services.text_index import TextIndex
from shared_context_server.storage import Store

READ_STEP = 500  # messages read at once
BLOCK_MESSAGES = 20_000
BLOCK_BYTES = 32_000_000  # of memory; the message that exceeds it is the block's last
ROOM_BYTES = 24_000_000  # the most that one page may take, if all its words differ
MAX_CACHED_BYTES = 96_000_000  # of memory, for all sessions of a process
MAX_BEHIND = 20 * READ_STEP  # a corpus further behind starts again at the end of the log

_MESSAGE_BYTES = 300  # a message without its texts
_NO_METADATA: JsonObject = {}


class Block:
    """The messages of a range of a log, with their texts indexed: the seqs after `low` up to
    `high`. They are in no order and not filtered by visibility."""

    def __init__(self, end: int) -> None:
        self.low = self.high = end
        self.messages: list[Message] = []
        self.contents = TextIndex()
        self.metadata = TextIndex()
        self.hidden: list[int] = []
        self._own_bytes = 0

    @property
    def size_bytes(self) -> int:
        return self.contents.size_bytes + self.metadata.size_bytes + self._own_bytes

    @property
    def is_full(self) -> bool:
        return len(self.messages) >= BLOCK_MESSAGES or self.size_bytes >= BLOCK_BYTES

    def add_in_steps(self, messages: Iterable[Message]) -> Work[None]:
        """Add messages that continue the block at either end, in order from there, until it is
        full."""
        for message in messages:
            if self.is_full:
                return
            yield from self.contents.add_in_steps(message.content)
            yield from self.metadata.add_in_steps(" ".join(leaf_texts(message.metadata)))
            if message.visibility is not Visibility.PUBLIC:
                self.hidden.append(len(self.messages))
            self.messages.append(message._replace(content="", metadata=_NO_METADATA))
            recipients = sum(map(sys.getsizeof, message.recipients))
            self._own_bytes += _MESSAGE_BYTES + recipients
            self.low = min(self.low, message.seq - 1)
            self.high = max(self.high, message.seq)
            yield


class Corpus:
    """The blocks of one session, without gaps, the newest last. There is at least one."""

    def __init__(self, session_id: str, last_seq: int) -> None:
        self.session_id = session_id
        self.blocks = [Block(last_seq)]
        self.lock = asyncio.Lock()
        self.refreshing: asyncio.Task[Session] | None = None
        self.next_refresh: asyncio.Task[Session] | None = None
        self._newest: tuple[object, ...] | None = None  # the message at `high`, once read

    def is_continued_by(self, log: list[Message]) -> bool:
        """Whether this log, read from the newest known message on, continues the corpus. It does
        not if that message is gone or another one, because the store was set back."""
        if not log or log[0].seq != self.high:
            return False
        if self._newest is None:
            self.note_newest(log[0])
        return self._newest == _mark(log[0])

    def note_newest(self, message: Message) -> None:
        self._newest = _mark(message)

    @property
    def high(self) -> int:
        return self.blocks[-1].high

    @property
    def low(self) -> int:
        return self.blocks[0].low

    @property
    def size_bytes(self) -> int:
        return sum(block.size_bytes for block in self.blocks)


class CorpusCache:
    """The corpora of the sessions searched last, `max_bytes` in all."""

    def __init__(self, store: Store, max_bytes: int = MAX_CACHED_BYTES) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._corpora: OrderedDict[str, Corpus] = OrderedDict()
        self._uncached = asyncio.Semaphore(1)  # limits blocks that are made for one search only

    @property
    def size_bytes(self) -> int:
        return sum(corpus.size_bytes for corpus in self._corpora.values())

    def forget(self, session_id: str) -> None:
        """Drop the corpus of a deleted session."""
        self._corpora.pop(session_id, None)

    async def refresh(self, session_id: str, ends_at: float) -> tuple[Corpus, Session, bool]:
        """Return the session's corpus, the session, and whether the newest block has every message
        that was acknowledged before the call. It may not if time.monotonic() passes `ends_at`.
        Calls that come during a refresh share the next one.

        Raises SessionNotFound. The caller has to check the permission to read.
        """
        corpus = self._corpora.get(session_id)
        if corpus is None:
            session = await self._store.sessions.get(session_id)
            corpus = self._corpora.get(session_id)
            if corpus is None:
                corpus = self._corpora[session_id] = Corpus(session_id, session.last_seq)
                return corpus, session, True
        self._corpora.move_to_end(session_id)
        if corpus.next_refresh is None:
            corpus.next_refresh = asyncio.create_task(self._refresh(corpus, corpus.refreshing))
            corpus.next_refresh.add_done_callback(_retrieve_error)
        try:
            async with asyncio.timeout(_left_s(ends_at)):
                session = await asyncio.shield(corpus.next_refresh)
        except TimeoutError:
            return corpus, await self._store.sessions.get(session_id), False
        return self._corpora.get(session_id, corpus), session, True

    async def _refresh(self, corpus: Corpus, earlier: asyncio.Task[Session] | None) -> Session:
        if earlier is not None:
            await asyncio.wait([earlier])
        corpus.refreshing, corpus.next_refresh = corpus.next_refresh, None
        try:
            return await self._read_on(corpus)
        except BaseException:
            if self._corpora.get(corpus.session_id) is corpus and not corpus.size_bytes:
                self.forget(corpus.session_id)
            raise

    async def _read_on(self, corpus: Corpus) -> Session:
        is_known = corpus.high == 0
        while True:
            seen: list[Session] = []
            after_seq = corpus.high if is_known else corpus.high - 1
            messages = await self._store.messages.read_log(
                corpus.session_id, after_seq=after_seq, limit=READ_STEP, guard=seen.append
            )
            session = seen[-1]
            is_continued = is_known or corpus.is_continued_by(messages)
            is_near = corpus.high <= session.last_seq <= corpus.high + MAX_BEHIND
            if not (is_continued and is_near):
                self._corpora[corpus.session_id] = Corpus(corpus.session_id, session.last_seq)
                return session
            if not is_known:
                is_known, messages = True, messages[1:]
                if not messages and corpus.high < session.last_seq:
                    continue  # only the known message fitted on the page
            if not messages:
                return session
            async with corpus.lock:
                while corpus.high < messages[-1].seq:
                    if corpus.blocks[-1].is_full:
                        corpus.blocks.append(Block(corpus.high))
                    new = [message for message in messages if message.seq > corpus.high]
                    await run_in_slices(corpus.blocks[-1].add_in_steps(new), math.inf)
                    self._make_room(corpus)
                corpus.note_newest(messages[-1])
            if corpus.high >= session.last_seq:
                return session

    async def extend_back(self, corpus: Corpus, ends_at: float) -> None:
        """Read older messages into the corpus until there are none, there is no more room, or
        time.monotonic() passes `ends_at`. Concurrent searches of a session share these reads."""
        while corpus.low > 0 and self._has_room(corpus):
            reading = asyncio.create_task(self._read_back(corpus, corpus.low))
            reading.add_done_callback(_retrieve_error)
            try:
                async with asyncio.timeout(_left_s(ends_at)):
                    await asyncio.shield(reading)
            except TimeoutError:
                return

    def _has_room(self, corpus: Corpus) -> bool:
        return corpus.size_bytes + ROOM_BYTES <= self._max_bytes

    async def _read_back(self, corpus: Corpus, low: int) -> None:
        async with corpus.lock:
            if corpus.low != low:
                return  # another search has read it
            if corpus.blocks[0].is_full:
                corpus.blocks.insert(0, Block(low))
            newest = await self._add_older(corpus.session_id, corpus.blocks[0])
            if newest is not None and newest.seq == corpus.high:
                corpus.note_newest(newest)
            self._make_room(corpus)

    async def _add_older(self, session_id: str, block: Block) -> Message | None:
        """Read one page of older messages into the block; return the newest of them, if any."""
        page = await self._store.messages.read_log(
            session_id, after_seq=0, before_seq=block.low + 1, limit=READ_STEP, guard=_allow
        )
        if not page:
            block.low = 0
        await run_in_slices(block.add_in_steps(reversed(page)), math.inf)
        return page[-1] if page else None

    @asynccontextmanager
    async def open_older(
        self, session_id: str, end: int, ends_at: float
    ) -> AsyncIterator[Block | None]:
        """Open a temporary block that ends at this seq, for when there is no room to keep it.
        Yields None if time.monotonic() passes `ends_at` first. There is one such block at a time.
        """
        async with AsyncExitStack() as stack:
            block = None
            with suppress(TimeoutError):
                async with asyncio.timeout(_left_s(ends_at)):
                    await stack.enter_async_context(self._uncached)
                    building = Block(end)
                    await self._add_older(session_id, building)
                    block = building
            yield block

    def _make_room(self, kept: Corpus) -> None:
        """Drop the sessions searched longest ago, then the oldest blocks of `kept`."""
        total = self.size_bytes
        for session_id, corpus in list(self._corpora.items()):
            if total <= self._max_bytes:
                return
            if corpus is not kept:
                total -= self._corpora.pop(session_id).size_bytes
        while total > self._max_bytes and len(kept.blocks) > 1:
            total -= kept.blocks.pop(0).size_bytes


def _mark(message: Message) -> tuple[object, ...]:
    """Return what differs if the store was set back and the seq was given to another message."""
    return message.id, message.sender, message.timestamp


def _left_s(ends_at: float) -> float:
    return max(0.0, ends_at - time.monotonic())


def _retrieve_error(task: asyncio.Task[Any]) -> None:
    """Mark the task's error as retrieved. Its waiters get it; without any, asyncio would log it."""
    if not task.cancelled():
        task.exception()


def _allow(session: Session) -> None:
    """Let every session pass. The search applies the policy to its matches."""


def leaf_texts(value: JsonValue) -> Iterator[str]:
    """Return the texts and numbers of a JSON value in document order, with the object keys."""
    around: list[Iterator[JsonValue]] = [iter((value,))]
    while around:
        for part in around[-1]:
            if isinstance(part, dict):
                around.append(chain.from_iterable(part.items()))
                break
            if isinstance(part, list):
                around.append(iter(part))
                break
            if isinstance(part, str):
                yield part
            elif part is not None and not isinstance(part, bool):
                yield str(part)
        else:
            around.pop()
