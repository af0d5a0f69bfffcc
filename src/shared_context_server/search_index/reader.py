"""Read the search index: find candidates in the state that was committed last, by any process.

Its functions take milliseconds and release the interpreter, so they run in a thread.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shared_context_server.models import MemoryAddress
from shared_context_server.search_index.documents import make_schema
from shared_context_server.search_index.errors import engine_errors
from shared_context_server.search_index.folder import IndexFolder
from shared_context_server.search_index.progress import Commit, Progress, find_commit, read_progress
from shared_context_server.search_index.queries import CandidateQuery, QueryMaker, Scope
from shared_context_server.search_index.vocabulary import Vocabulary

if TYPE_CHECKING:
    import tantivy

_MAX_COUNTS = 100
_LEAST_RECENCY = math.log2(3.0)  # the engine multiplies a score by log2(2 + recency)
_READ_AT_ONCE = 500  # documents, whose words are read within a search, in some milliseconds


class Candidate(NamedTuple):
    """A document that may match: a message by its id, or a memory entry by its address. `estimate`: its
    share of the query, from 0 to 1 and a little more if words stand next to each other; 1 where
    the newest come first."""

    message_id: int
    address: MemoryAddress | None
    estimate: float


class TermCounts:
    """How many documents have a frequent term, by scope, from this state of the index or an earlier one
    of about the same size. Counting takes up to 10 ms at a million messages."""

    LEAST = 500  # documents; fewer are counted each time, in less than 0.1 ms
    MOST_CHANGE = 0.02  # of the documents of the scope
    MOST = 2_000  # counts that are kept

    def __init__(self) -> None:
        self._known: dict[tuple[str, Scope], tuple[int, int]] = {}

    def find(self, term: str, scope: Scope, documents: int) -> int | None:
        """Return the number; None if it has to be counted. `documents`: those of the scope now."""
        count, documents_then = self._known.get((term, scope), (0, 0))
        if not count or abs(documents - documents_then) > self.MOST_CHANGE * documents_then:
            return None
        return min(count, documents)

    def keep(self, term: str, scope: Scope, documents: int, count: int) -> None:
        if count < self.LEAST:
            return
        if len(self._known) >= self.MOST:
            self._known.clear()
        self._known[term, scope] = count, documents


class Snapshot:
    """One state of the index. It does not change. `vocabulary`: the words of this state or of an
    earlier one, None until they are read. `term_counts`: what was counted, in earlier ones too. `last`:
    the state before this one."""

    def __init__(
        self, index: tantivy.Index, progress: Progress, last: Snapshot | None = None
    ) -> None:
        self._searcher = index.searcher()
        self._documents = self._searcher.num_docs
        self._queries = QueryMaker(index.schema)
        self._counts: dict[Scope, int] = {}
        self.progress = progress
        self.vocabulary: Vocabulary | None = None if last is None else last.vocabulary
        self.term_counts: TermCounts = TermCounts() if last is None else last.term_counts

    @property
    def covers_up_to_id(self) -> int:
        """Every message with an id up to this one is in the index."""
        return self.progress.changes.message_id

    def find(self, query: CandidateQuery) -> list[Candidate]:
        """Return the candidates, best or newest first. Raises IndexUnusable."""
        with engine_errors():
            if self._documents <= _READ_AT_ONCE and self.is_vocabulary_stale:
                self.read_vocabulary()
            vocabulary = self.vocabulary
            list_containing = None if vocabulary is None else vocabulary.list_containing
            found = self._search(self._queries.find(query, list_containing), query)
            is_known = vocabulary is not None and vocabulary.documents == self._documents
            if len(found) < query.enough and not is_known:
                containing = self._queries.walk_containing(query)
                found += [] if containing is None else self._search(containing, query)
            return found

    @property
    def is_vocabulary_stale(self) -> bool:
        """Whether many words may be missing in the vocabulary."""
        return self.vocabulary is None or self.vocabulary.is_stale(self._documents)

    def read_vocabulary(self) -> None:
        """Read the words of this state. It takes up to a second. Raises IndexUnusable."""
        with engine_errors():
            self.vocabulary = Vocabulary(self._searcher)

    def _search(self, made: tantivy.Query, query: CandidateQuery) -> list[Candidate]:
        if query.newest_first:
            found = self._searcher.search(
                made, limit=query.limit, count=False, order_by_field="number"
            )
        else:
            found = self._searcher.search(
                made, limit=query.limit, count=False, weight_by_field="recency"
            )
        if not found.hits:
            return []
        numbers = self._searcher.fast_field_values("number", [address for _, address in found.hits])
        return [
            Candidate(
                int(number or 0),
                None if number else self._read_address(address),
                1.0 if query.newest_first else float(score) / _LEAST_RECENCY,
            )
            for number, (score, address) in zip(numbers, found.hits, strict=True)
        ]

    def count(self, scope: Scope) -> int:
        """Return the number of documents in the scope. Raises IndexUnusable."""
        count = self._counts.get(scope)
        if count is None:
            count = self._count(self._queries.count(scope))
            if len(self._counts) >= _MAX_COUNTS:
                self._counts.clear()
            self._counts[scope] = count
        return count

    def count_with(self, term: str, scope: Scope) -> int:
        """Return the number of documents in the scope that have the term, of a frequent one about
        that number. Raises IndexUnusable."""
        documents = self.count(scope)
        count = self.term_counts.find(term, scope, documents)
        if count is None:
            count = self._count(self._queries.count_with(term, scope))
            self.term_counts.keep(term, scope, documents, count)
        return count

    def count_memory(self, addresses: Sequence[MemoryAddress], scope: Scope) -> int:
        """Return how many of the entries are in the index, in the scope. Raises IndexUnusable."""
        return self._count(self._queries.count_memory(addresses, scope))

    def _count(self, made: tantivy.Query) -> int:
        with engine_errors():
            found = self._searcher.search(made, limit=1, count=True)
            return int(found.count)  # type: ignore[attr-defined]  # missing in the stubs

    def _read_address(self, address: tantivy.DocAddress) -> MemoryAddress:
        stored = self._searcher.doc(address).get_first("stored")
        return MemoryAddress(**json.loads(str(stored)))


@dataclass(slots=True)
class _Opened:
    generation: Path
    index: tantivy.Index
    commit: Commit | None = None
    snapshot: Snapshot | None = None


class IndexReader:
    """Opens the newest state of the index. For one thread."""

    def __init__(self, folder: IndexFolder) -> None:
        self._folder = folder
        self._opened: _Opened | None = None

    def open_snapshot(self) -> Snapshot | None:
        """Return the newest state; None if there is no index. Raises IndexUnusable."""
        generation = self._folder.find_current()
        if generation is None:
            self._opened = None
            return None
        with engine_errors():
            opened = self._opened
            if opened is None or opened.generation != generation:
                self._opened = None
                opened = _open(generation)
            while opened.commit != (commit := find_commit(generation)):
                progress = read_progress(generation)
                opened.index.reload()
                opened.snapshot = Snapshot(opened.index, progress, opened.snapshot)
                opened.commit = commit
            self._opened = opened
            return opened.snapshot

    def close(self) -> None:
        """Close the files."""
        self._opened = None


def _open(generation: Path) -> _Opened:
    import tantivy  # noqa: PLC0415 - see the package's docstring

    # With the schema, which raises an error if the index has another one.
    index = tantivy.Index(make_schema(), path=str(generation))
    index.config_reader(reload_policy="manual")
    return _Opened(generation, index)
