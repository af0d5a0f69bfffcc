"""Read the index of vectors: find what is nearest to a query's vector in the state committed last.

All rows of the scope are compared, so nothing is missed that an approximate index would miss, and
the audience is exact. The signs of the vectors choose the nearest, their bytes put these in order
(see layout). numpy releases the interpreter meanwhile; it runs in a thread.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared_context_server.models import MemoryAddress
from shared_context_server.search_index.errors import engine_errors
from shared_context_server.search_index.folder import IndexFolder
from shared_context_server.search_index.progress import Progress
from shared_context_server.search_index.queries import Scope
from shared_context_server.storage.codec import encode_time
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
    State,
    find_audiences,
    find_name,
    make_vectors,
    mark_rows,
    open_database,
    read_state,
    to_bits,
)

COMPARED_AT_ONCE = 65_536  # rows: 8 MB at most
OVERSAMPLING = 8  # rows put in order for each that is wanted
MIN_ORDERED = 1_000


class Match(NamedTuple):
    """What is near: a message by its id, or a memory entry by its address; `start`: where in its
    text the nearest window starts. `similarity`: the cosine."""

    similarity: float
    message_id: int
    address: MemoryAddress | None
    start: int


@dataclass(frozen=True, slots=True)
class Nearest:
    """The nearest documents, nearest first. `count`: the documents of the scope that was counted."""

    matches: list[Match]
    count: int
    progress: Progress


class VectorReader:
    """Opens the newest state of the index. For one thread."""

    def __init__(self, folder: IndexFolder, embedder: Embedder) -> None:
        self._folder = folder
        self._embedder = embedder
        self._generation: Path | None = None
        self._database: sqlite3.Connection | None = None

    def find(self, query: str, scope: Scope, counted: Scope, limit: int) -> Nearest | None:
        """Return the nearest documents of `scope`; None if there is no index of this model. Raises
        IndexUnusable and EmbedderFailed."""
        generation = self._folder.find_current()
        if generation is None:
            return None
        with engine_errors():
            database = self._open(generation)
            state = read_state(database)
            if state is None or state.model != self._embedder.name:
                return None
        vector = make_vectors(self._embedder, [query])
        with engine_errors():
            return _Comparison(generation, database, state).find(vector, scope, counted, limit)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
        self._database = self._generation = None

    def _open(self, generation: Path) -> sqlite3.Connection:
        if self._database is None or self._generation != generation:
            self.close()
            self._database, self._generation = open_database(generation), generation
        return self._database


class _Comparison:
    """The comparison of one query with one state."""

    def __init__(self, generation: Path, database: sqlite3.Connection, state: State) -> None:
        self._database = database
        self._state = state
        files = Files(generation, state.dimensions)
        self._rows: NDArray[np.void] = _map(files.rows, state.rows, ROW, 0)
        self._bits: NDArray[np.uint8] = _map(
            files.bits, state.rows, np.dtype(np.uint8), files.widths[files.bits]
        )
        self._bytes: NDArray[np.int8] = _map(
            files.bytes, state.rows, np.dtype(np.int8), state.dimensions
        )

    def find(
        self, vector: NDArray[np.float32], scope: Scope, counted: Scope, limit: int
    ) -> Nearest:
        """Return the nearest of `scope`, which is a part of `counted`."""
        sought, all_seen = _Filter(self._database, scope), _Filter(self._database, counted)
        bits, sign = self._read_bits(vector)
        kept = max(MIN_ORDERED, OVERSAMPLING * limit)
        near, distances, count = np.zeros(0, np.int64), np.zeros(0, np.uint16), 0
        for first in range(0, self._state.rows, COMPARED_AT_ONCE):
            rows = self._rows[first : first + COMPARED_AT_ONCE]
            places = all_seen.find(rows)
            count += int(np.count_nonzero(rows["window"][places] == 0))
            if scope != counted:
                places = places[sought.find(rows[places])]
            places += first
            differing = np.bitwise_count(bits[places] ^ sign).sum(1, dtype=np.uint16)
            near = np.concatenate((near, places))
            distances = np.concatenate((distances, differing))
            if len(near) > kept:
                chosen = np.argpartition(distances, kept)[:kept]
                near, distances = near[chosen], distances[chosen]
        return Nearest(self._order(vector[0], near, limit), count, self._state.progress)

    def _read_bits(self, vector: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the signs of all rows and of the vector, in the largest numbers they divide into."""
        sign = to_bits(vector)[0]
        if len(sign) % 8:
            return self._bits, sign
        return self._bits.view(np.uint64), sign.view(np.uint64)

    def _order(
        self, vector: NDArray[np.float32], near: NDArray[np.int64], limit: int
    ) -> list[Match]:
        """Return the documents of the rows, each once with its nearest window."""
        stored = self._bytes[near].astype(np.float32)
        lengths = np.linalg.norm(stored, axis=1)
        similarities = stored @ vector / np.where(lengths == 0, 1, lengths)
        rows = self._rows[near]
        found: dict[int | MemoryAddress, Match] = {}
        # The newest first among equals.
        for place in np.lexsort((rows["number"], similarities))[::-1]:
            if len(found) == limit:
                break
            number, start = int(rows["number"][place]), int(rows["start"][place])
            address = None if number else self._find_address(int(near[place]))
            name = address or number
            if name and name not in found:
                found[name] = Match(float(similarities[place]), number, address, start)
        return list(found.values())

    def _find_address(self, row: int) -> MemoryAddress | None:
        found = self._database.execute(
            "SELECT address FROM memory WHERE row = ?", (row,)
        ).fetchone()
        return None if found is None else MemoryAddress(**json.loads(found[0]))


class _Filter:
    """A scope as numbers of the rows."""

    def __init__(self, database: sqlite3.Connection, scope: Scope) -> None:
        audiences = set(find_audiences(database, VIEWER, scope.keys.viewers))
        if scope.keys.readers is not None:
            audiences &= set(find_audiences(database, READER, scope.keys.readers))
        self._any_of: dict[str, list[int]] = {}  # what leaves the fewest comes first
        names = (
            (SESSION, scope.session_id),
            (SENDER, scope.sender),
            (VISIBILITY, scope.visibility),
        )
        for kind, text in names:
            if text is not None:
                number = find_name(database, kind, text)
                self._any_of[kind] = [] if number is None else [number]
        self._any_of["audience"] = sorted(audiences)
        self._any_of["kind"] = [KINDS[kind] for kind in scope.kinds]
        self._from = None if scope.start_time is None else encode_time(scope.start_time)
        self._to = None if scope.end_time is None else encode_time(scope.end_time)

    def find(self, rows: NDArray[np.void]) -> NDArray[np.int64]:
        """Return the places of the rows that are in the scope."""
        places: NDArray[np.int64] = np.arange(len(rows))
        for field, numbers in self._any_of.items():
            places = places[mark_rows(rows[field][places], numbers)]
        places = places[rows["is_used"][places] == 1]
        if self._from is not None:
            places = places[rows["time_us"][places] >= self._from]
        if self._to is not None:
            places = places[rows["time_us"][places] <= self._to]
        return places


def _map(path: Path, count: int, dtype: np.dtype[Any], width: int) -> NDArray[Any]:
    shape = (count, width) if width else (count,)
    return np.memmap(path, dtype, "r", shape=shape) if count else np.zeros(shape, dtype)
