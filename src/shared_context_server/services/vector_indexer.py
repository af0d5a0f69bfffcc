"""Keep the index of vectors up to date with the store, as the search index is.

Embedding takes milliseconds of processor time for a message, hundreds of times what its terms take.
It runs in the indexer's thread, on one core, and rests in between: a third of the time, and most of
it while the event loop is busy. The interpreter is released while the model computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from shared_context_server.models import MemoryEntry, Message, Session
from shared_context_server.search_index.audience import memory_audience, message_audience
from shared_context_server.search_index.documents import Document, Kind
from shared_context_server.search_index.progress import Progress
from shared_context_server.services.index_ports import Writer
from shared_context_server.services.indexed_documents import memory_text
from shared_context_server.services.indexer import Indexer
from shared_context_server.services.pacing import Pacer
from shared_context_server.services.vectors import Vectors
from shared_context_server.storage import Store
from shared_context_server.storage.codec import encode_time
from shared_context_server.vector_index.windows import Window, cut_windows

BATCH = 8  # windows embedded at once: how long closing waits for, and how much memory it takes
COMMIT_AFTER = 500  # windows: some seconds of work
BUSY_REST = 4.0  # times a batch: a fifth of a core while the loop is busy


class VectorIndexer(Indexer):
    """Writes the vectors while this process has their folder's lock."""

    erases_at_once = True

    def __init__(self, store: Store, vectors: Vectors) -> None:
        assert vectors.folder is not None
        super().__init__(store, vectors.folder, pacer=Pacer(busy_rest=BUSY_REST))
        self._vectors = vectors

    @property
    def _commit_after(self) -> int:
        return COMMIT_AFTER

    async def _prepare(self) -> None:
        await self._thread.run(self._vectors.load_embedder)

    def _read_progress(self, generation: Path) -> Progress:
        from shared_context_server.vector_index.writer import (  # noqa: PLC0415 - an extra
            read_progress,
        )

        return read_progress(generation, self._vectors.load_embedder())

    def _make_writer(self, generation: Path) -> Writer:
        from shared_context_server.vector_index.writer import (  # noqa: PLC0415 - an extra
            VectorWriter,
        )

        return VectorWriter(generation, self._vectors.load_embedder())

    def _write_messages(self, writer: Writer, messages: Sequence[tuple[Message, Session]]) -> None:
        windows = [
            window
            for message, session in messages
            for window in cut_windows(_to_message_document(message, session), message.content)
        ]
        # Texts of about one length fill a batch without gaps.
        self._write(writer, sorted(windows, key=lambda window: len(window.text)))

    def _write_memory(self, writer: Writer, entry: MemoryEntry, session: Session | None) -> None:
        writer.remove_memory(entry.address)
        self._write(writer, cut_windows(_to_memory_document(entry, session), memory_text(entry)))

    def _write(self, writer: Writer, windows: Sequence[Window]) -> None:
        from shared_context_server.vector_index.writer import (  # noqa: PLC0415 - an extra
            VectorWriter,
        )

        assert isinstance(writer, VectorWriter)
        left = iter(windows)
        while batch := list(islice(left, BATCH)):
            self._pacer.begin()
            writer.add(batch)
            self._rest()


def _to_message_document(message: Message, session: Session) -> Document:
    return Document(
        kind=Kind.MESSAGE,
        number=message.id,
        session_id=message.session_id,
        audience=message_audience(message, session),
        sender=message.sender,
        visibility=message.visibility,
        time_us=encode_time(message.timestamp),
        terms=(),
        metadata_terms=(),
    )


def _to_memory_document(entry: MemoryEntry, session: Session | None) -> Document:
    return Document(
        kind=Kind.MEMORY,
        number=0,
        session_id=entry.address.session_id,
        audience=memory_audience(entry, session),
        sender=entry.updated_by,
        visibility="",
        time_us=encode_time(entry.updated_at),
        terms=(),
        metadata_terms=(),
        address=entry.address,
    )
