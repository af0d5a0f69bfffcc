"""Look up candidates in the search index, in threads beside the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from shared_context_server.observability.logs import get_logger
from shared_context_server.search_index.errors import IndexUnusable
from shared_context_server.search_index.folder import IndexFolder
from shared_context_server.search_index.progress import Progress, read_progress
from shared_context_server.search_index.queries import CandidateQuery
from shared_context_server.search_index.reader import Candidate, IndexReader, Snapshot
from shared_context_server.services.late_imports import INDEX, import_late
from shared_context_server.services.query_terms import QueryTerm

THREADS = 2
COMPLAIN_EVERY_S = 60.0

_log = get_logger("search_index")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Looked:
    """What the index answered to a query of these `terms`. `count`: the documents that the caller may
    see. `snapshot`: the state of the index. `slack`: how much more a score may be than 100 times
    the estimate."""

    query: CandidateQuery
    terms: Sequence[QueryTerm]
    candidates: Sequence[Candidate]
    count: int
    snapshot: Snapshot
    slack: float = 100.0

    @property
    def progress(self) -> Progress:
        return self.snapshot.progress


@dataclass(frozen=True, slots=True)
class IndexSize:
    """`message_id`: the newest message in the index."""

    message_id: int
    size_bytes: int


class Candidates:
    """The search index as searches use it. None for a folder: there is no index."""

    def __init__(self, folder: IndexFolder | None) -> None:
        self._folder = folder
        self._reader = None if folder is None else IndexReader(folder)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="search-index")
        self._lock = threading.Lock()
        self._may_read = threading.Lock()  # held while the words of the index are read
        self._complained_at = -COMPLAIN_EVERY_S

    async def look_up(self, search: Callable[[Snapshot], T]) -> T | None:
        """Run the function in a thread on the newest state of the index. None if there is no index,
        or if it is damaged, which is reported to the process that writes it."""
        if self._reader is None or self._folder is None or self._folder.find_current() is None:
            return None
        await import_late(INDEX)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, self._look_up, search)
        except (IndexUnusable, OSError) as exc:
            self._folder.report_damage()
            if time.monotonic() - self._complained_at >= COMPLAIN_EVERY_S:
                self._complained_at = time.monotonic()
                _log.warning("the search index cannot be read", error=str(exc))
            return None

    async def measure(self) -> IndexSize | None:
        """Return how far the index is and its size; None if there is none."""
        return None if self._folder is None else await asyncio.to_thread(_measure, self._folder)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _look_up(self, search: Callable[[Snapshot], T]) -> T | None:
        assert self._reader is not None
        with self._lock:
            snapshot = self._reader.open_snapshot()
        if snapshot is None:
            return None
        found = search(snapshot)
        if snapshot.is_vocabulary_stale and self._may_read.acquire(blocking=False):
            self._threads.submit(self._read_vocabulary, snapshot)
        return found

    def _read_vocabulary(self, snapshot: Snapshot) -> None:
        try:
            snapshot.read_vocabulary()
        except IndexUnusable:
            pass  # the next search meets it too, and reports it
        finally:
            self._may_read.release()


def _measure(folder: IndexFolder) -> IndexSize | None:
    generation = folder.find_current()
    if generation is None:
        return None
    try:
        progress = read_progress(generation)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return IndexSize(progress.changes.message_id, folder.size_bytes())
