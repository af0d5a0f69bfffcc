"""Write the search index: add and remove documents, and commit them with the position in the store.

For one thread. Each method raises IndexUnusable if the files are damaged or cannot be written. What
is not committed is lost with the process, and is read from the store again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shared_context_server.models import MemoryAddress
from shared_context_server.search_index.documents import (
    Document,
    make_schema,
    memory_key,
    to_tantivy,
)
from shared_context_server.search_index.errors import IndexUnusable, engine_errors
from shared_context_server.search_index.progress import (
    Progress,
    announce_commit,
    begin_progress,
    read_meta,
    read_progress,
)

if TYPE_CHECKING:
    import tantivy

HEAP_BYTES = 15_000_000  # the least that tantivy takes; its default is 128 MB


class IndexWriter:
    """The writer of one generation."""

    def __init__(self, generation: Path) -> None:
        import tantivy  # noqa: PLC0415 - see the package's docstring

        self.generation = generation
        with engine_errors():
            self._index = tantivy.Index(make_schema(), path=str(generation))
            self._index.config_reader(reload_policy="manual")
            self._writer: tantivy.IndexWriter | None = self._index.writer(HEAP_BYTES, 1)
            begin_progress(generation)
            self.progress = read_progress(generation)
        self.pending = 0

    def add(self, document: Document) -> None:
        """Add a document; a memory entry in place of its earlier version."""
        with engine_errors():
            if document.address is not None:
                self._open.delete_documents_by_term("key", memory_key(document.address))
            self._open.add_document(to_tantivy(document))
        self.pending += 1

    def remove_memory(self, address: MemoryAddress) -> None:
        with engine_errors():
            self._open.delete_documents_by_term("key", memory_key(address))
        self.pending += 1

    def remove_session(self, session_id: str) -> None:
        """Remove the messages and the memory of a session."""
        with engine_errors():
            self._open.delete_documents_by_term("session", session_id)
        self.pending += 1

    def remove_old_messages(self, session_id: str, up_to_id: int) -> None:
        """Remove the messages of a session up to an id."""
        import tantivy  # noqa: PLC0415 - see the package's docstring

        must, schema = tantivy.Occur.Must, self._index.schema
        with engine_errors():
            # Memory has the number 0.
            old = tantivy.Query.range_query(
                schema, "number", tantivy.FieldType.Unsigned, 1, max(1, up_to_id)
            )
            of_session = tantivy.Query.term_query(schema, "session", session_id)
            both = tantivy.Query.boolean_query([(must, of_session), (must, old)])
            self._open.delete_documents_by_query(both)
        self.pending += 1

    def remove_messages(self, ids: Sequence[int]) -> None:
        import tantivy  # noqa: PLC0415 - see the package's docstring

        with engine_errors():
            # By query: the method for terms finds no numbers.
            named = tantivy.Query.term_set_query(self._index.schema, "number", ids)
            self._open.delete_documents_by_query(named)
        self.pending += len(ids)

    def commit(self, progress: Progress) -> None:
        """Make all changes durable and visible, together with how far the store has been read."""
        with engine_errors():
            announce_commit(self.generation, self.progress, progress)
            self._open.commit()
            self._open.garbage_collect_files()
        self.progress = progress
        self.pending = 0

    def list_unerased(self, ids_from: int, ids_below: int) -> list[int] | None:
        """Return the ids in this range of the committed messages whose files also hold deleted
        documents; None if no file holds any."""
        import tantivy  # noqa: PLC0415 - see the package's docstring

        with engine_errors():
            searcher, unerased = self._find_unerased_segments()
            if not unerased:
                return None
            in_range = tantivy.Query.range_query(
                self._index.schema,
                "number",
                tantivy.FieldType.Unsigned,
                ids_from,
                ids_below,
                include_upper=False,
            )
            found = searcher.search(in_range, limit=max(1, ids_below - ids_from), count=False)
            addresses = [address for _, address in found.hits if address.segment_ord in unerased]
            numbers = searcher.fast_field_values("number", addresses) if addresses else []
        return [int(number) for number in numbers if number]

    def _find_unerased_segments(self) -> tuple[tantivy.Searcher, set[int]]:
        """Return the newest state, and the numbers of its files that hold deleted documents. The
        searcher numbers the files in the order of the meta file, which a merge may replace."""
        while True:
            meta = read_meta(self.generation)
            self._index.reload()
            searcher = self._index.searcher()
            if read_meta(self.generation) == meta:
                deleted = [segment["deletes"] for segment in meta["segments"]]
                return searcher, {number for number, count in enumerate(deleted) if count}

    def close(self) -> None:
        """Give up what is not committed, and end the engine's threads."""
        self._writer = None

    @property
    def _open(self) -> tantivy.IndexWriter:
        if self._writer is None:
            raise IndexUnusable("The writer is closed.")
        return self._writer
