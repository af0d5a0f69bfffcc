"""Copy a whole store into another one. A copy can be interrupted and repeated, and is verified.

The destination has to be empty, or hold a part of what the source holds, perhaps in an earlier
state. This is checked before anything is written. A copy that was interrupted, or whose source has
changed since, is completed by running it again: rows that are there already are only read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from shared_context_server.errors import ConfigurationError, CopyError
from shared_context_server.storage.codec import Row
from shared_context_server.storage.transfer.copying import Copier, RowReader
from shared_context_server.storage.transfer.lines import Tally, replace_nul, to_line
from shared_context_server.storage.transfer.records import COUNTER, KINDS, Key, RecordKind
from shared_context_server.storage.transfer.succession import follows

BATCH_ROWS = 1000  # rows in one transaction at the destination

_ADVICE = (
    "Copy to an empty database, or to one in which a copy of this source was begun and which "
    "nobody has written to since."
)


class DestinationDiffers(CopyError):
    """The destination holds data that is not from this source. Nothing was overwritten."""


class ProgressListener(Protocol):
    """Receives progress reports."""

    def begin(self, stage: str, total: int | None) -> None:
        """Called when a stage begins that handles `total` records; None if the number is unknown."""
        ...

    def advance(self, count: int) -> None: ...


class Source(Protocol):
    """Rows to be copied, the same ones at each reading."""

    @property
    def counts(self) -> Mapping[RecordKind, int]:
        """The number of rows of each kind."""
        ...

    def rewind(self) -> None:
        """Start again with the first of KINDS."""
        ...

    def read(self, kind: RecordKind) -> AsyncIterator[Sequence[Row]]:
        """Yield the rows by key, in non-empty batches. Called in the order of KINDS."""
        ...


class SnapshotSource:
    """The rows of a snapshot."""

    def __init__(self, snapshot: RowReader, counts: Mapping[RecordKind, int]) -> None:
        self._snapshot = snapshot
        self.counts = counts

    @classmethod
    async def of(cls, snapshot: RowReader) -> SnapshotSource:
        return cls(snapshot, {kind: await snapshot.count_rows(kind) for kind in KINDS})

    def rewind(self) -> None:
        """Do nothing: any kind can be read at any time."""

    def read(self, kind: RecordKind) -> AsyncIterator[Sequence[Row]]:
        return read_batches(self._snapshot, kind)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rows of a kind in the source, and the rows found in the destination at the end."""

    kind: RecordKind
    source: Tally
    destination: Tally

    @property
    def is_equal(self) -> bool:
        ours, theirs = self.source, self.destination
        return (ours.count, ours.sha256) == (theirs.count, theirs.sha256)


@dataclass(frozen=True, slots=True)
class Moved:
    """The result of a copy. `written`: rows written; the others were there. `replaced_nul`:
    characters replaced because the destination cannot store them. `has_source_gone_on`: the source
    was written to meanwhile, and those writes are not in the copy."""

    comparisons: list[Comparison]
    written: int
    replaced_nul: int
    has_source_gone_on: bool = False

    @property
    def is_equal(self) -> bool:
        return all(comparison.is_equal for comparison in self.comparisons)


async def move(source: Source, destination: Copier, progress: ProgressListener) -> Moved:
    """Copy the missing rows, then read the destination again and compare.

    Raises DestinationDiffers, having written nothing, if the destination holds other data. It may
    also raise it later if another program writes there. Raises RecordRefused for a row that the
    destination cannot keep.
    """
    if await _holds_anything(destination):
        await _Comparer(source, destination, progress).require_part_of_source()
    comparer = _Comparer(source, destination, progress)
    await comparer.copy()
    async with destination.open_snapshot() as snapshot:
        found = await tally(snapshot, progress)
    return _compare(comparer, found)


async def restore(source: Source, destination: Copier, progress: ProgressListener) -> Moved:
    """Copy all rows into an empty store and compare, in one transaction: all is there, or nothing.

    Raises ConfigurationError if the store holds anything, CopyError if what was written differs,
    and RecordRefused for a row that the store cannot keep.
    """
    async with destination.open_transaction():
        if await _holds_anything(destination):
            raise ConfigurationError(
                "The database is not empty, and nothing was restored. A backup is restored into an "
                "empty database only: create one, name it in DATABASE_URL, and run this again."
            )
        comparer = _Comparer(source, destination, progress)
        await comparer.copy()
        moved = _compare(comparer, await tally(destination, progress))
        if not moved.is_equal:
            raise CopyError("The database does not keep what the backup has. Nothing was restored.")
    return moved


async def copy_store(source: Copier, destination: Copier, progress: ProgressListener) -> Moved:
    """Copy a store in its present state. Raises what `move` raises."""
    before = await source.get_position()
    async with source.open_snapshot() as snapshot:
        moved = await move(await SnapshotSource.of(snapshot), destination, progress)
    return replace(moved, has_source_gone_on=await source.get_position() != before)


async def tally(reader: RowReader, progress: ProgressListener) -> dict[RecordKind, Tally]:
    """Return count and checksum of all rows, by kind."""
    progress.begin("verifying", sum([await reader.count_rows(kind) for kind in KINDS]))
    tallies = {kind: Tally() for kind in KINDS}
    for kind in KINDS:
        async for rows in read_batches(reader, kind):
            for row in rows:
                tallies[kind].add(to_line(kind, row))
            progress.advance(len(rows))
    return tallies


async def read_batches(
    reader: RowReader,
    kind: RecordKind,
    *,
    after: Key | None = None,
    up_to: Key | None = None,
) -> AsyncIterator[list[Row]]:
    """Yield all rows between the bounds in batches."""
    while rows := await reader.read_rows(kind, after=after, up_to=up_to, limit=BATCH_ROWS):
        yield rows
        after = kind.key_of(rows[-1])


def _compare(comparer: _Comparer, found: Mapping[RecordKind, Tally]) -> Moved:
    return Moved(
        [Comparison(kind, comparer.tallies[kind], found[kind]) for kind in KINDS],
        comparer.written,
        comparer.replaced_nul,
    )


async def _holds_anything(store: RowReader) -> bool:
    for kind in KINDS:
        if kind is not COUNTER and await store.read_rows(kind, limit=1):
            return True
    return False


class _Comparer:
    """Reads source and destination side by side."""

    def __init__(self, source: Source, destination: Copier, progress: ProgressListener) -> None:
        self._source = source
        self._destination = destination
        self._progress = progress
        self.tallies = {kind: Tally() for kind in KINDS}
        self.written = 0
        self.replaced_nul = 0

    async def require_part_of_source(self) -> None:
        """Raise DestinationDiffers unless the destination holds a part of the source."""
        counts = {kind: await self._destination.count_rows(kind) for kind in KINDS}
        self._progress.begin("comparing", sum(counts.values()))
        self._source.rewind()
        for kind in KINDS:
            if left := counts[kind]:
                left -= await self._count_present(kind, left)
            if left:
                raise DestinationDiffers(
                    f"The destination has {left} records of the kind {kind.name} that the source "
                    f"does not have. {_ADVICE}"
                )

    async def _count_present(self, kind: RecordKind, enough: int) -> int:
        """Count the rows of a kind, but no further than to `enough`."""
        met = 0
        after = None
        async for rows in self._source.read(kind):
            added, _ = await self._find_missing_and_changed(kind, self._adapt(kind, rows), after)
            self._progress.advance(len(rows) - len(added))
            met += len(rows) - len(added)
            if met >= enough:
                break
            after = kind.key_of(rows[-1])
        return met

    async def copy(self) -> None:
        """Write the missing rows."""
        self._progress.begin("copying", sum(self._source.counts.values()))
        self._source.rewind()
        for kind in KINDS:
            after = None
            async for rows in self._source.read(kind):
                adapted = self._adapt(kind, rows)
                for row in adapted:
                    self.tallies[kind].add(to_line(kind, row))
                added, changed = await self._find_missing_and_changed(kind, adapted, after)
                if added or changed:
                    await self._destination.write_rows(kind, added, changed)
                self.written += len(added) + len(changed)
                self._progress.advance(len(rows))
                after = kind.key_of(rows[-1])

    def _adapt(self, kind: RecordKind, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows as the destination can store them."""
        if self._destination.can_store_nul:
            return rows
        adapted = []
        for row in rows:
            row, replaced = replace_nul(kind, row)
            self.replaced_nul += replaced
            adapted.append(row)
        return adapted

    async def _find_missing_and_changed(
        self, kind: RecordKind, rows: Sequence[Row], after: Key | None
    ) -> tuple[list[Row], list[Row]]:
        """Split the rows into those that are missing and those that are there in an earlier state."""
        missing = {kind.key_of(row): row for row in rows}
        changed: list[Row] = []
        up_to = kind.key_of(rows[-1])
        async for batch in read_batches(self._destination, kind, after=after, up_to=up_to):
            for present in batch:
                row = missing.pop(kind.key_of(present), None)
                if row is None:
                    raise DestinationDiffers(
                        f"The destination has the {kind.describe(present)}, which the source does "
                        f"not have. {_ADVICE}"
                    )
                if row == present or to_line(kind, row) == to_line(kind, present):
                    continue
                if not follows(kind, present, row):
                    raise DestinationDiffers(
                        f"The destination has another {kind.describe(present)} than the source, and "
                        f"not an earlier state of it. {_ADVICE}"
                    )
                changed.append(row)
        return list(missing.values()), changed
