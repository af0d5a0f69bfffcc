"""Keep the search index up to date with the store, in one process of those that share it.

The indexer reads new messages by their ids, and from the change stream which sessions were deleted,
which messages expired and which memory was written or removed. It commits its position with the
documents, so whatever a crash loses is read again. Where it cannot go on, because the index is new,
damaged or of another format, changes were purged or the store was set back, it begins a new one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from shared_context_server.background_tasks import BackgroundTasks
from shared_context_server.errors import MemoryNotFound, SessionNotFound, SharedContextError
from shared_context_server.models import (
    Caller,
    Event,
    EventKind,
    MemoryAddress,
    MemoryEntry,
    Message,
    Permission,
    Session,
)
from shared_context_server.observability.logs import get_logger
from shared_context_server.search_index.errors import IndexUnusable
from shared_context_server.search_index.folder import IndexFolder
from shared_context_server.search_index.progress import Progress, read_progress
from shared_context_server.search_index.writer import IndexWriter
from shared_context_server.services.index_ports import Helper, Writer
from shared_context_server.services.index_thread import IndexThread
from shared_context_server.services.indexed_documents import (
    to_memory_document,
    to_message_document,
)
from shared_context_server.services.late_imports import INDEX, import_late
from shared_context_server.services.pacing import Pacer
from shared_context_server.steady_time import utc_now
from shared_context_server.storage import Store
from shared_context_server.storage.codec import encode_time
from shared_context_server.storage.contract import Anchor, ChangePosition

POLL_S = 0.5
READ_LIMIT = 100  # messages read at once: some milliseconds
COMMIT_AFTER = 5_000  # documents; a commit costs 10 ms of processor time and more
COMMIT_AFTER_CHANGES = 1_000  # that concern no document
CHANGES_EVERY = 2_000  # messages: how often the change stream is read while catching up
CHANGES_LIMIT = 500
KEEP_OPEN_S = 30.0  # how long the writer stays open without work; open, it has threads and memory
REBUILD_PAUSE_S = 30.0  # between two new indexes
MAX_FAILURES = 3  # to write an index, before it is made anew
ERASE_STEP = 2_000  # ids
ERASE_PAUSE_SHARE = 20  # erasing takes at most this part of the time
KNOWN_SESSIONS = 10_000

_INDEXER = Caller("search index", "", frozenset({Permission.ADMIN}), key_id="")

_log = get_logger("search_index")


class _StartAnew(Exception):
    """The index cannot be continued."""


@asynccontextmanager
async def open_indexer(indexer: Indexer) -> AsyncIterator[None]:
    """Run the indexer in the background for a with block."""
    tasks = BackgroundTasks("search-indexer")
    running = tasks.start(indexer.run())
    try:
        yield
    finally:
        indexer.begin_closing()
        running.cancel()
        await tasks.wait()
        await indexer.aclose()


class Indexer:
    """Writes the index while this process has the folder's lock. An indexer of other files replaces
    `_prepare`, `_read_progress`, `_make_writer`, `_write_messages` and `_write_memory`.
    `erases_at_once`: the writer leaves nothing of what it removes."""

    erases_at_once = False

    def __init__(
        self,
        store: Store,
        folder: IndexFolder,
        *,
        pacer: Pacer | None = None,
        helper: Helper | None = None,
    ) -> None:
        self._store = store
        self._folder = folder
        self._helper = helper
        self._thread = IndexThread()
        self._pacer = pacer or Pacer()
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._generation: Path | None = None
        self._writer: Writer | None = None
        self._progress = Progress()
        self._worked_at = 0.0
        self._begun_at = -REBUILD_PAUSE_S
        self._erase_after = 0.0
        self._is_failing = False
        self._failures = 0
        self._seen_end: ChangePosition | None = None

    @property
    def is_writing(self) -> bool:
        """Whether this process is the one that writes."""
        return self._folder.is_locked

    @property
    def message_id(self) -> int:
        """Return up to which message the store has been read."""
        return self._progress.changes.message_id

    async def run(self) -> None:
        """Follow the store until it is cancelled."""
        while True:
            try:
                await self.catch_up()
                self._is_failing = False
            except (SharedContextError, IndexUnusable) as exc:
                await self._fail(exc)
            except Exception:  # noqa: BLE001 - it has no caller; the log shows it
                _log.exception("the search index failed")
                self._seen_end = None
                await self._close_writer()
                await asyncio.sleep(REBUILD_PAUSE_S)
            await asyncio.sleep(POLL_S)

    async def catch_up(self) -> None:
        """Bring the index up to what the store has now, if this process writes."""
        if not await self._thread.run(self._folder.lock):
            return
        if self._folder.take_damage_report():
            await self._begin_anew("a search has found it damaged")
        elif self._generation is None:
            await self._find_generation()
        if await self._is_up_to_date():
            if self._writer is not None and time.monotonic() - self._worked_at > KEEP_OPEN_S:
                await self._close_writer()
            return
        if (
            self._helper is not None
            and self._helper.is_ready
            and self._has_much_to_do(self._helper)
        ):
            await self._hand_over(self._helper)
            return
        try:
            writer = await self._open_writer()
            await self._read_on(writer)
            await self._erase(writer)
            self._failures = 0
        except _StartAnew as exc:
            await self._begin_anew(str(exc))
        except IndexUnusable as exc:
            self._seen_end = None
            # A full disk passes. What stays is damage.
            if await self._thread.run(self._folder.is_disk_full):
                raise IndexUnusable(f"The disk of {self._folder.path} is full: {exc}") from exc
            self._failures += 1
            if self._failures < MAX_FAILURES:
                raise
            await self._begin_anew(str(exc))

    def begin_closing(self) -> None:
        """Let the work under way in the thread end soon."""
        self._thread.begin_closing()
        if self._helper is not None:
            self._helper.stop()

    async def aclose(self) -> None:
        """Give up what is not committed, and end the thread."""
        self.begin_closing()
        await self._close_writer()
        await self._thread.aclose()
        self._folder.unlock()

    # The files

    @property
    def _commit_after(self) -> int:
        """Return how many documents are written between two commits."""
        return COMMIT_AFTER

    async def _prepare(self) -> None:
        """Import and load what writing takes."""
        await import_late(INDEX)

    def _read_progress(self, generation: Path) -> Progress:
        return read_progress(generation)

    def _make_writer(self, generation: Path) -> Writer:
        return IndexWriter(generation)

    # The index

    async def _find_generation(self) -> None:
        """Continue the current index, or begin a new one."""
        await self._close_writer()
        current = self._folder.find_current()
        if current is None:
            await self._begin_anew("there is none of this format", logging.DEBUG)
            return
        try:
            self._progress = await self._thread.run(self._read_progress, current)
        except (OSError, ValueError, TypeError, KeyError) as exc:
            await self._begin_anew(f"its progress cannot be read: {exc}")
            return
        self._generation = current
        self._folder.remove_others(current)

    async def _begin_anew(self, reason: str, level: int = logging.INFO) -> None:
        await self._close_writer()
        self._seen_end = None
        pause_s = self._begun_at + REBUILD_PAUSE_S - time.monotonic()
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        self._begun_at = time.monotonic()
        _log.log(level, "the search index is made anew", reason=reason)
        await self._prepare()
        end = await self._store.changes.get_position()
        self._progress = Progress(ChangePosition(0, end.change_id))
        self._generation, self._writer = await self._thread.run(self._make_generation)
        self._failures = 0

    def _make_generation(self) -> tuple[Path, Writer]:
        generation = self._folder.make_generation()
        try:
            writer = self._make_writer(generation)
            writer.commit(self._progress)
            self._folder.make_current(generation)
        except IndexUnusable:
            self._folder.remove(generation)
            raise
        return generation, writer

    async def _open_writer(self) -> Writer:
        if self._writer is None:
            assert self._generation is not None
            await self._prepare()
            self._writer = await self._thread.run(self._make_writer, self._generation)
            self._progress = self._writer.progress
        return self._writer

    async def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            # In its thread, so that what runs there ends first.
            await self._thread.finish(writer.close)
            self._progress = writer.progress

    def _has_much_to_do(self, helper: Helper) -> bool:
        assert self._seen_end is not None
        if self._progress.is_erasure_due and self.message_id >= helper.much_to_erase:
            return time.monotonic() >= self._erase_after
        return self._seen_end.message_id - self.message_id >= helper.much

    async def _hand_over(self, helper: Helper) -> None:
        """Let the helper write, and wait until it ends. Then any process may go on."""
        await self._close_writer()
        self._generation = self._seen_end = None
        was_erasure_due, started = self._progress.is_erasure_due, time.monotonic()
        await self._thread.run(helper.run, self._folder.unlock)
        if was_erasure_due:
            self._pause_erasing(time.monotonic() - started)

    async def _fail(self, exc: Exception) -> None:
        if not self._is_failing:
            self._is_failing = True
            _log.warning("the search index does not follow the store", error=str(exc))
        self._seen_end = None
        await self._close_writer()
        await asyncio.sleep(POLL_S)

    # Reading the store

    async def _is_up_to_date(self) -> bool:
        """Whether the store has nothing that the index lacks."""
        progress, seen_end = self._progress, self._seen_end
        self._seen_end = end = await self._store.changes.get_position()
        return (
            progress.is_complete
            and not (progress.is_erasure_due and time.monotonic() >= self._erase_after)
            # What was removed at the end leaves the position behind the end.
            and end in (progress.changes, seen_end)
        )

    async def _read_on(self, writer: Writer) -> None:
        """Read all that is new, commit it, and go on until nothing is left."""
        await self._read_changes(writer)
        since_changes, ends_at_id = 0, self._find_end_of_turn()
        while self.message_id < ends_at_id:
            news = await self._store.messages.list_new(
                _INDEXER, after_id=self._progress.changes.message_id, limit=READ_LIMIT
            )
            await self._add_messages(writer, news.messages)
            self._advance_messages(news.messages, news.next_after_id)
            since_changes += len(news.messages)
            if since_changes >= CHANGES_EVERY or not news.has_more:
                since_changes = 0
                is_at_end = await self._read_changes(writer)
                if not news.has_more and not self._progress.is_complete:
                    is_at_end = await self._read_memory(writer) and is_at_end
                if not news.has_more and is_at_end:
                    break
            if writer.pending >= self._commit_after:
                await self._commit(writer)
        if self.message_id >= ends_at_id:
            self._seen_end = None  # there may be more
        committed = writer.progress
        if (
            writer.pending
            or committed.is_complete != self._progress.is_complete
            or self._progress.changes.change_id > committed.changes.change_id + COMMIT_AFTER_CHANGES
        ):
            await self._commit(writer)

    def _find_end_of_turn(self) -> float:
        """Return at which message to look again whether the helper should go on."""
        helper = self._helper
        return math.inf if helper is None or not helper.is_ready else self.message_id + helper.much

    async def _add_messages(self, writer: Writer, messages: Sequence[Message]) -> None:
        found = []
        for message in messages:
            session = await self._find_session(message.session_id)
            if session is not None:
                found.append((message, session))
        if found:
            await self._thread.run(self._write_messages, writer, found)

    def _write_messages(self, writer: Writer, messages: Sequence[tuple[Message, Session]]) -> None:
        assert isinstance(writer, IndexWriter)
        self._pacer.begin()
        for message, session in messages:
            writer.add(to_message_document(message, session))
            self._rest()

    def _advance_messages(self, messages: Sequence[Message], next_after_id: int) -> None:
        changes = self._progress.changes
        anchor = changes.anchor
        if messages:
            newest = messages[-1]
            anchor = Anchor(newest.id, newest.session_id, encode_time(newest.timestamp))
        moved = ChangePosition(next_after_id, changes.change_id, anchor)
        self._progress = replace(self._progress, changes=moved)

    async def _read_changes(self, writer: Writer) -> bool:
        """Apply a page of other changes; return whether it was the last."""
        position = self._progress.changes
        changes = await self._store.changes.read(position, CHANGES_LIMIT)
        if changes.is_set_back:
            raise _StartAnew("the store was set back to an earlier state")
        if not changes.is_complete:
            raise _StartAnew("changes were purged before they were read")
        has_messages = False
        for event in changes.events:
            has_messages |= event.kind is EventKind.MESSAGE_ADDED
            await self._apply(writer, event)
        # The messages themselves are read by list_new.
        end = changes.position
        message_id = position.message_id if has_messages else end.message_id
        moved = ChangePosition(message_id, end.change_id, position.anchor)
        self._progress = replace(self._progress, changes=moved)
        return len(changes.events) < CHANGES_LIMIT

    async def _apply(self, writer: Writer, event: Event) -> None:
        if event.kind is EventKind.SESSION_DELETED and event.session_id is not None:
            self._sessions.pop(event.session_id, None)
            await self._thread.run(writer.remove_session, event.session_id)
            self._progress = replace(self._progress, is_erasure_due=not self.erases_at_once)
        elif event.kind is EventKind.MESSAGES_EXPIRED and event.session_id is not None:
            up_to_id = await self._store.expiry.get_removed_id(event.session_id)
            await self._thread.run(writer.remove_old_messages, event.session_id, up_to_id)
            self._progress = replace(self._progress, is_erasure_due=not self.erases_at_once)
        elif event.kind is EventKind.MEMORY_CHANGED and event.name is not None:
            address = MemoryAddress(event.name, event.session_id or None, event.owner or None)
            entry = await self._find_memory(address)
            if entry is None:
                await self._thread.run(writer.remove_memory, address)
            else:
                await self._add_memory(writer, entry)

    async def _read_memory(self, writer: Writer) -> bool:
        """Read a page of all memory; return whether it was the last."""
        entries = await self._store.memory.list_all(
            after=self._progress.memory, limit=READ_LIMIT, now=utc_now()
        )
        for entry in entries:
            await self._add_memory(writer, entry)
        if not entries:
            self._progress = replace(self._progress, memory=None, is_complete=True)
            return True
        self._progress = replace(self._progress, memory=entries[-1].address)
        return False

    async def _add_memory(self, writer: Writer, entry: MemoryEntry) -> None:
        session = None
        if entry.address.session_id is not None:
            session = await self._find_session(entry.address.session_id)
            if session is None:
                return
        await self._thread.run(self._write_memory, writer, entry, session)

    def _write_memory(self, writer: Writer, entry: MemoryEntry, session: Session | None) -> None:
        assert isinstance(writer, IndexWriter)
        self._pacer.begin()
        writer.add(to_memory_document(entry, session))
        self._rest()

    def _rest(self) -> None:
        """Leave the processor to the loop for a while, in the indexer's thread."""
        self._pacer.step()
        self._thread.check()

    async def _find_memory(self, address: MemoryAddress) -> MemoryEntry | None:
        guard = None if address.session_id is None else _allow
        try:
            return await self._store.memory.get(address, now=utc_now(), guard=guard)
        except (MemoryNotFound, SessionNotFound):
            return None

    async def _find_session(self, session_id: str) -> Session | None:
        """Return the session; None if it was deleted. Who may read a session never changes, so known
        ones are not read again."""
        session = self._sessions.get(session_id)
        if session is None:
            try:
                session = await self._store.sessions.get(session_id)
            except SessionNotFound:
                return None
            self._sessions[session_id] = session
            if len(self._sessions) > KNOWN_SESSIONS:
                self._sessions.popitem(last=False)
        return session

    # Writing

    async def _commit(self, writer: Writer) -> None:
        self._worked_at = time.monotonic()
        await self._thread.run(writer.commit, self._progress)

    async def _erase(self, writer: Writer) -> None:
        """Remove deleted texts from the files. The engine only marks documents as deleted until it
        merges their file, so the other documents of such files are added anew."""
        if not self._progress.is_erasure_due or time.monotonic() < self._erase_after:
            return
        helper = self._helper
        if helper is not None and helper.is_ready and self.message_id >= helper.much_to_erase:
            return  # the next look hands it over
        started = time.monotonic()
        end = self._progress.changes.message_id + 1
        for ids_from in range(0, end, ERASE_STEP):
            ids = await self._thread.run(writer.list_unerased, ids_from, ids_from + ERASE_STEP)
            if ids is None:
                break
            await self._add_anew(writer, ids)
            if writer.pending >= self._commit_after:
                await self._commit(writer)
        after: MemoryAddress | None = None
        while entries := await self._store.memory.list_all(
            after=after, limit=READ_LIMIT, now=utc_now()
        ):
            for entry in entries:
                await self._add_memory(writer, entry)
            after = entries[-1].address
        self._progress = replace(self._progress, is_erasure_due=False)
        await self._commit(writer)
        self._pause_erasing(time.monotonic() - started)

    def _pause_erasing(self, took_s: float) -> None:
        self._erase_after = time.monotonic() + took_s * ERASE_PAUSE_SHARE

    async def _add_anew(self, writer: Writer, ids: list[int]) -> None:
        if ids:
            await self._thread.run(writer.remove_messages, ids)
        left = ids
        while left:
            messages = await self._store.messages.list_by_ids(_INDEXER, left[:READ_LIMIT])
            await self._add_messages(writer, messages)
            last = left.index(messages[-1].id) if messages else len(left[:READ_LIMIT]) - 1
            left = left[last + 1 :]


def _allow(session: Session) -> None:
    """Let every session pass: the audience is stored with the document."""
