"""Write the index of vectors: add and remove documents, and commit them with the position in the store.

For one thread. Each method raises IndexUnusable if the files are damaged or cannot be written. A row
that is added counts from the next commit on. What is removed is overwritten with zeros at once.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from shared_context_server.models import MemoryAddress
from shared_context_server.search_index.audience import Audience
from shared_context_server.search_index.documents import Kind, memory_key
from shared_context_server.search_index.errors import IndexUnusable, engine_errors
from shared_context_server.search_index.progress import Progress
from shared_context_server.vector_index.embedders import Embedder
from shared_context_server.vector_index.layout import (
    KINDS,
    READER,
    ROW,
    SENDER,
    SESSION,
    VIEWER,
    VISIBILITY,
    Files,
    OtherModel,
    State,
    create_database,
    find_name,
    make_vectors,
    mark_rows,
    open_database,
    read_state,
    to_bits,
    to_bytes,
    write_state,
)
from shared_context_server.vector_index.windows import Window

K = TypeVar("K")

MAX_KNOWN = 10_000  # names and audiences that are not looked up again


def read_progress(generation: Path, embedder: Embedder) -> Progress:
    """Return the progress of the last commit. Raises OtherModel, which is a ValueError, if the vectors
    are of another model, and OSError or ValueError if a file is missing or damaged."""
    try:
        with closing(open_database(generation)) as database:
            state = read_state(database)
    except sqlite3.Error as exc:
        raise ValueError(str(exc)) from exc
    if state is None or state.model != embedder.name:
        raise OtherModel("its vectors are of another model")
    return state.progress


class VectorWriter:
    """The writer of one generation."""

    def __init__(self, generation: Path, embedder: Embedder) -> None:
        self.generation = generation
        self._embedder = embedder
        self._files = Files(generation, embedder.dimensions)
        self._names: dict[tuple[str, str], int] = {}
        self._audiences: dict[Audience, int] = {}
        self._free: list[int] = []
        self.pending = 0
        with engine_errors():
            self._database = create_database(generation)
            state = read_state(self._database)
            if state is not None and state.model != embedder.name:
                raise OtherModel(state.model)
            self._count = 0 if state is None else state.rows
            self.progress = Progress() if state is None else state.progress
            for path, width in self._files.widths.items():
                with path.open("ab") as file:
                    if file.tell() < self._count * width:
                        raise IndexUnusable(f"{path} is too short")
                    file.truncate(self._count * width)
            self._forget_uncommitted()
            self._free = self._find_free()

    def add(self, windows: Sequence[Window]) -> None:
        """Embed the windows and add them. Earlier rows of a memory entry are the caller's to
        remove. Raises EmbedderFailed too."""
        vectors = make_vectors(self._embedder, [window.text for window in windows])
        with engine_errors():
            rows = np.zeros(len(windows), ROW)
            for number, window in enumerate(windows):
                rows[number] = self._to_row(window)
            places = self._take_places(len(windows))
            self._write(places, rows, vectors)
            self._note_addresses(windows, places)
        self.pending += len(windows)

    def remove_memory(self, address: MemoryAddress) -> None:
        with engine_errors():
            found = self._database.execute(
                "SELECT row FROM memory WHERE key = ?", (memory_key(address),)
            ).fetchall()
            self._clear([row for (row,) in found])

    def remove_session(self, session_id: str) -> None:
        """Remove the messages and the memory of a session."""
        with engine_errors():
            number = find_name(self._database, SESSION, session_id)
            if number is None:
                return
            rows = self._open_rows()
            self._clear(np.flatnonzero(mark_rows(rows["session"], [number])).tolist())
            self._database.execute("DELETE FROM names WHERE id = ?", (number,))
            self._names.pop((SESSION, session_id), None)
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def remove_old_messages(self, session_id: str, up_to_id: int) -> None:
        """Remove the messages of a session up to an id."""
        with engine_errors():
            number = find_name(self._database, SESSION, session_id)
            if number is None:
                return
            rows = self._open_rows()
            found = mark_rows(rows["session"], [number]) & (rows["kind"] == KINDS[Kind.MESSAGE])
            self._clear(np.flatnonzero(found & (rows["number"] <= up_to_id)).tolist())

    def remove_messages(self, ids: Sequence[int]) -> None:
        with engine_errors():
            rows = self._open_rows()
            found = mark_rows(rows["number"], ids) & (rows["kind"] == KINDS[Kind.MESSAGE])
            self._clear(np.flatnonzero(found).tolist())

    def list_unerased(self, ids_from: int, ids_below: int) -> list[int] | None:
        """Return None: what is removed is erased at once."""
        return None

    def commit(self, progress: Progress) -> None:
        """Make all changes durable and visible, together with how far the store has been read."""
        with engine_errors():
            for path in self._files.widths:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            embedder = self._embedder
            state = State(embedder.name, embedder.dimensions, self._count, progress)
            write_state(self._database, state)
        self.progress = progress
        self.pending = 0

    def close(self) -> None:
        """Give up what is not committed."""
        self._database.close()

    # Rows

    def _open_rows(self) -> NDArray[np.void]:
        if not self._count:
            return np.zeros(0, ROW)
        return np.memmap(self._files.rows, ROW, "r+", shape=(self._count,))

    def _forget_uncommitted(self) -> None:
        """Clear what was written into free rows after the last commit: it is read again."""
        self._database.execute("DELETE FROM memory WHERE row >= ?", (self._count,))
        rows = self._open_rows()
        newer = rows["number"] > self.progress.changes.message_id
        self._clear(np.flatnonzero(newer).tolist())

    def _find_free(self) -> list[int]:
        free: list[int] = np.flatnonzero(self._open_rows()["is_used"] == 0).tolist()
        return free

    def _take_places(self, count: int) -> list[int]:
        """Return rows to write: free ones, then new ones at the end."""
        reused = [self._free.pop() for _ in range(min(count, len(self._free)))]
        added = range(self._count, self._count + count - len(reused))
        self._count = added.stop
        return [*reused, *added]

    def _write(
        self, places: Sequence[int], rows: NDArray[np.void], vectors: NDArray[np.float32]
    ) -> None:
        """Write the rows, and last what makes them count."""
        files = self._files
        written = {files.bits: to_bits(vectors), files.bytes: to_bytes(vectors), files.rows: rows}
        for path, width in files.widths.items():
            with path.open("r+b") as file:
                for place, row in zip(places, written[path], strict=True):
                    file.seek(place * width)
                    file.write(row.tobytes())

    def _clear(self, places: Sequence[int]) -> None:
        """Overwrite the rows with zeros, and free them."""
        if not places:
            return
        for path, width in reversed(self._files.widths.items()):
            with path.open("r+b") as file:
                for place in places:
                    file.seek(place * width)
                    file.write(bytes(width))
        self._database.executemany(
            "DELETE FROM memory WHERE row = ?", [(place,) for place in places]
        )
        self._free += places
        self.pending += len(places)

    # Names

    def _to_row(self, window: Window) -> tuple[int, ...]:
        document = window.document
        return (
            document.number,
            document.time_us,
            window.start,
            self._name(SESSION, document.session_id or ""),
            self._note_audience(document.audience),
            self._name(SENDER, document.sender),
            self._name(VISIBILITY, document.visibility),
            KINDS[document.kind],
            window.number,
            1,
            0,
        )

    def _name(self, kind: str, text: str) -> int:
        """Return the number of a name; 0 for an empty one. It is durable before a row has it."""
        if not text:
            return 0
        number = self._names.get((kind, text)) or find_name(self._database, kind, text)
        if number is None:
            number = self._database.execute(
                "INSERT INTO names (kind, text) VALUES (?, ?)", (kind, text)
            ).lastrowid
        assert number is not None
        _keep(self._names, (kind, text), number)
        return number

    def _note_audience(self, audience: Audience) -> int:
        number = self._audiences.get(audience)
        if number is None:
            number = self._find_audience(audience)
            _keep(self._audiences, audience, number)
        return number

    def _find_audience(self, audience: Audience) -> int:
        """Return the number of an audience; a new one is durable, whole, before a row has it."""
        keys = json.dumps(asdict(audience))
        database = self._database
        found = database.execute("SELECT id FROM audiences WHERE keys = ?", (keys,)).fetchone()
        if found is not None:
            return int(found[0])
        database.execute("BEGIN IMMEDIATE")
        number = database.execute("INSERT INTO audiences (keys) VALUES (?)", (keys,)).lastrowid
        assert number is not None
        database.executemany(
            "INSERT INTO audience_keys VALUES (?, ?, ?)",
            [
                (role, key, number)
                for role, named in ((VIEWER, audience.viewers), (READER, audience.readers))
                for key in dict.fromkeys(named)
            ],
        )
        database.execute("COMMIT")
        return number

    def _note_addresses(self, windows: Sequence[Window], places: Sequence[int]) -> None:
        noted = [
            (place, memory_key(address), json.dumps(asdict(address)))
            for place, window in zip(places, windows, strict=True)
            if (address := window.document.address) is not None
        ]
        self._database.executemany("INSERT OR REPLACE INTO memory VALUES (?, ?, ?)", noted)


def _keep(known: dict[K, int], key: K, number: int) -> None:
    if len(known) >= MAX_KNOWN:
        known.clear()
    known[key] = number
