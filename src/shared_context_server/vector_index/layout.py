"""The files of the index of vectors.

`rows` has a row for each window of a text: what the text is and who may find it, as numbers. `bits`
has the sign of each number of its vector, which the search compares first, and `bytes` the vector
with 8 bits for each number, for the nearest. The rows of the three files belong together. `names.db`
is a SQLite database of what the numbers mean, of the addresses of memory, and of how far the store
has been read.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared_context_server.search_index.documents import Kind
from shared_context_server.search_index.progress import Progress, to_progress
from shared_context_server.vector_index.embedders import Embedder, EmbedderFailed

FORMAT = 1

ROW = np.dtype(
    [
        ("number", "<u8"),
        ("time_us", "<i8"),
        ("start", "<u4"),
        ("session", "<u4"),
        ("audience", "<u4"),
        ("sender", "<u4"),
        ("visibility", "<u4"),
        ("kind", "u1"),
        ("window", "u1"),
        ("is_used", "u1"),
        ("unused", "u1"),
    ]
)
KINDS = {Kind.MESSAGE: 0, Kind.MEMORY: 1}
SCALE = 127  # of a vector of length 1

VIEWER, READER = "viewer", "reader"
SESSION, SENDER, VISIBILITY = "session", "sender", "visibility"

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA secure_delete = ON;
CREATE TABLE IF NOT EXISTS names (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, text TEXT NOT NULL, UNIQUE (kind, text)
);
CREATE TABLE IF NOT EXISTS audiences (id INTEGER PRIMARY KEY, keys TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS audience_keys (
    role TEXT NOT NULL, key TEXT NOT NULL, audience INTEGER NOT NULL,
    PRIMARY KEY (role, key, audience)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS memory (
    row INTEGER PRIMARY KEY, key TEXT NOT NULL, address TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS memory_key ON memory (key);
CREATE TABLE IF NOT EXISTS state (
    id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER NOT NULL, model TEXT NOT NULL,
    dimensions INTEGER NOT NULL, rows INTEGER NOT NULL, progress TEXT NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class State:
    """What the last commit says. `rows`: how many rows of the files count."""

    model: str
    dimensions: int
    rows: int
    progress: Progress


class OtherModel(ValueError):
    """The vectors are of another model or format."""


@dataclass(frozen=True, slots=True)
class Files:
    """The paths of one generation, and the length of a row in each."""

    generation: Path
    dimensions: int

    @property
    def rows(self) -> Path:
        return self.generation / "rows"

    @property
    def bits(self) -> Path:
        return self.generation / "bits"

    @property
    def bytes(self) -> Path:
        return self.generation / "bytes"

    @property
    def widths(self) -> dict[Path, int]:
        return {
            self.bits: (self.dimensions + 7) // 8,
            self.bytes: self.dimensions,
            self.rows: ROW.itemsize,
        }


def database_path(generation: Path) -> Path:
    return generation / "names.db"


def create_database(generation: Path) -> sqlite3.Connection:
    """Open the database to write, and create what is missing. For one thread at a time."""
    database = sqlite3.connect(
        database_path(generation), isolation_level=None, check_same_thread=False
    )
    database.executescript(_SCHEMA)
    return database


def open_database(generation: Path) -> sqlite3.Connection:
    """Open the database to read."""
    uri = f"{database_path(generation).as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def read_state(database: sqlite3.Connection) -> State | None:
    """Return the last commit; None before the first. Raises OtherModel for another format."""
    found = database.execute(
        "SELECT format, model, dimensions, rows, progress FROM state"
    ).fetchone()
    if found is None:
        return None
    version, model, dimensions, rows, progress = found
    if version != FORMAT:
        raise OtherModel(f"format {version}")
    return State(model, dimensions, rows, to_progress(json.loads(progress)))


def write_state(database: sqlite3.Connection, state: State) -> None:
    database.execute(
        "INSERT OR REPLACE INTO state VALUES (1, ?, ?, ?, ?, ?)",
        (FORMAT, state.model, state.dimensions, state.rows, json.dumps(asdict(state.progress))),
    )


def find_audiences(database: sqlite3.Connection, role: str, keys: Iterable[str]) -> list[int]:
    """Return the audiences that have one of these keys."""
    named = list(keys)
    marks = ",".join("?" * len(named))
    found = database.execute(
        f"SELECT DISTINCT audience FROM audience_keys WHERE role = ? AND key IN ({marks})",  # noqa: S608
        (role, *named),
    )
    return [audience for (audience,) in found]


def find_name(database: sqlite3.Connection, kind: str, text: str) -> int | None:
    found = database.execute(
        "SELECT id FROM names WHERE kind = ? AND text = ?", (kind, text)
    ).fetchone()
    return None if found is None else int(found[0])


def normalize(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the vectors with length 1; a vector of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    normal: NDArray[np.float32] = (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)
    return normal


def to_bits(vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.packbits(vectors > 0, axis=1)


def to_bytes(vectors: NDArray[np.float32]) -> NDArray[np.int8]:
    return np.rint(vectors * SCALE).astype(np.int8)


def make_vectors(embedder: Embedder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the vectors of the texts, of length 1. Raises EmbedderFailed."""
    try:
        vectors: NDArray[np.float32] = np.asarray(embedder.embed(texts), np.float32)
    except Exception as exc:
        raise EmbedderFailed(f"the embedder failed: {exc}") from exc
    shape = (len(texts), embedder.dimensions)
    if vectors.shape != shape or not np.isfinite(vectors).all():
        raise EmbedderFailed(f"the embedder made numbers of {vectors.shape}, not finite {shape}")
    return normalize(vectors)


def mark_rows(column: NDArray[np.unsignedinteger], numbers: Sequence[int]) -> NDArray[np.bool_]:
    """Return which of a column's numbers are among these."""
    found: NDArray[np.bool_] = (
        column == numbers[0]
        if len(numbers) == 1
        else np.isin(column, np.asarray(numbers, column.dtype))
    )
    return found
