"""Write and read dumps: all records of a store as lines of JSON. docs/moving.md specifies the
format.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

from pydantic import JsonValue
from pydantic_core import to_json

from shared_context_server import __version__
from shared_context_server.errors import CopyError
from shared_context_server.models import JsonObject
from shared_context_server.services.line_chain import MAX_LINE_BYTES, LineChain
from shared_context_server.services.moving import BATCH_ROWS, ProgressListener, read_batches
from shared_context_server.services.signatures import (
    SIGNATURE,
    SignatureWrong,
    check_signature,
    make_signature,
)
from shared_context_server.storage.codec import Row
from shared_context_server.storage.transfer.copying import RecordRefused, RowReader
from shared_context_server.storage.transfer.lines import RECORD, Tally, parse_line, to_line, to_row
from shared_context_server.storage.transfer.records import (
    CURSOR,
    KINDS,
    KINDS_BY_NAME,
    MESSAGE,
    SESSION,
    RecordKind,
)

if TYPE_CHECKING:  # see services.signatures
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

FORMAT = "shared-context-export"
VERSION = 1
FOOTER = "footer"
CHAIN = "chain"
CHAINED_RECORDS = 1000  # between two lines that have the chain's value

BATCH_BYTES = 4_000_000  # of lines read at a time
_PROGRESS_LINES = 1000  # between two progress reports of the check

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_LEVEL = 6
_BUFFER_BYTES = 256 * 1024
_READ_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)


class DumpDamaged(CopyError):
    """The file is not a dump, is incomplete, or was altered. The message says where, and what before it is
    known to be as it was exported."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a dump contains: count and checksum by kind, and the last value of its chain."""

    tallies: Mapping[RecordKind, Tally]
    head: str


async def write_dump(
    reader: RowReader,
    file: BinaryIO,
    progress: ProgressListener,
    *,
    is_compressed: bool = False,
    key: Ed25519PrivateKey | None = None,
) -> Written:
    """Write all rows of a snapshot as a dump, signed if there is a key. `file` stays open."""
    progress.begin("exporting", sum([await reader.count_rows(kind) for kind in KINDS]))
    if not is_compressed:
        return await _write_lines(reader, file, progress, key)
    with (
        # No name and no time in it, so that equal dumps are equal files.
        gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed,
        # A call of GzipFile costs more than a short line.
        io.BufferedWriter(packed, _BUFFER_BYTES) as buffered,
    ):
        return await _write_lines(reader, buffered, progress, key)


async def _write_lines(
    reader: RowReader,
    file: BinaryIO | io.BufferedWriter,
    progress: ProgressListener,
    key: Ed25519PrivateKey | None,
) -> Written:
    tallies = {kind: Tally() for kind in KINDS}
    chain = LineChain()

    def write(line: bytes) -> None:
        chain.add(line)
        file.write(line)

    header = _header()
    file.write(header)
    for kind in KINDS:
        async for rows in read_batches(reader, kind):
            for row in rows:
                line = to_line(kind, row)
                tallies[kind].add(line)
                write(line)
                if chain.lines % CHAINED_RECORDS == 0:
                    file.write(_chain_line(chain))
            progress.advance(len(rows))
    write(_footer(tallies, chain))
    # Last, so that the values before are the same for equal data, whenever it is exported.
    chain.add(header)
    if key is not None:
        file.write(to_json(make_signature(key, chain.head)) + b"\n")
    return Written(tallies, chain.head)


def _header() -> bytes:
    header = {
        "format": FORMAT,
        "version": VERSION,
        "created_at": f"{datetime.now(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z",
        "program": f"shared-context-server {__version__}",
    }
    return to_json(header) + b"\n"


def _chain_line(chain: LineChain) -> bytes:
    """The chain's value after all records so far."""
    return to_json({RECORD: CHAIN, "count": chain.lines, "sha256": chain.head}) + b"\n"


def _footer(tallies: Mapping[RecordKind, Tally], chain: LineChain) -> bytes:
    footer = {RECORD: FOOTER, "kinds": _summarize(tallies), CHAIN: chain.head}
    return to_json(footer) + b"\n"


def _summarize(tallies: Mapping[RecordKind, Tally]) -> dict[str, JsonObject]:
    return {
        kind.name: {"count": tally.count, "sha256": tally.sha256} for kind, tally in tallies.items()
    }


@dataclass(frozen=True, slots=True)
class _Record:
    kind: RecordKind
    row: Row
    line_bytes: int


class DumpSource:
    """A dump as a Source. `file` must be seekable and stays open. Call check() first.

    `public_key`: the dump has to be signed with its private key. After check(), `head` is the last value
    of the chain, and `signed_by` the public key of the signature, None without one.
    """

    def __init__(self, file: BinaryIO, public_key: Ed25519PublicKey | None = None) -> None:
        self._file = file
        self._public_key = public_key
        self.head = ""
        self.signed_by: str | None = None
        self._records: Iterator[_Record] = iter(())
        self._next: _Record | None = None
        self.counts: Mapping[RecordKind, int] = {}

    def check(self, progress: ProgressListener) -> None:
        """Read the whole dump and set `counts`. Raises DumpDamaged, which tells which part is
        intact, and SignatureWrong."""
        progress.begin("checking", None)
        counts = dict.fromkeys(KINDS, 0)
        checked = _Checked()
        for number, record in enumerate(_read_dump(self._file, checked), 1):
            counts[record.kind] += 1
            if number % _PROGRESS_LINES == 0:
                progress.advance(_PROGRESS_LINES)
        self.counts = counts
        self.head = checked.chain.head
        if checked.signature is not None:
            self.signed_by = check_signature(checked.signature, self.head, self._public_key)
        elif self._public_key is not None:
            raise SignatureWrong("The file is not signed.")

    def rewind(self) -> None:
        self._records = _read_dump(self._file, _Checked())
        self._next = next(self._records, None)

    async def read(self, kind: RecordKind) -> AsyncIterator[Sequence[Row]]:
        place = KINDS.index(kind)
        while self._next is not None and KINDS.index(self._next.kind) < place:
            self._next = next(self._records, None)
        while rows := self._take_batch(kind):
            yield rows

    def _take_batch(self, kind: RecordKind) -> list[Row]:
        rows: list[Row] = []
        size = 0
        while self._next is not None and self._next.kind is kind:
            rows.append(self._next.row)
            size += self._next.line_bytes
            self._next = next(self._records, None)
            if len(rows) == BATCH_ROWS or size >= BATCH_BYTES:
                break
        return rows


def _read_dump(file: BinaryIO, checked: _Checked) -> Iterator[_Record]:
    """Yield the records, all of them checked, and the footer at the end. Raises DumpDamaged."""
    with open_lines(file) as lines:
        yield from _check_lines(lines, checked)


@contextmanager
def open_lines(file: BinaryIO) -> Iterator[BinaryIO | io.BufferedReader]:
    """The beginning of a file that may be compressed, to be read by lines. `file` must be seekable."""
    file.seek(0)
    is_compressed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    file.seek(0)
    if not is_compressed:
        yield file
        return
    with gzip.GzipFile(fileobj=file) as unpacked:
        yield io.BufferedReader(unpacked, _BUFFER_BYTES)


def is_dump(file: BinaryIO) -> bool:
    """Whether the first line says that this is a dump, perhaps of another version. A compressed file that
    cannot be read counts as one: check() says what is wrong with it."""
    try:
        with open_lines(file) as lines:
            return parse_line(lines.readline(MAX_LINE_BYTES)).get("format") == FORMAT
    except RecordRefused:
        return False
    except _READ_ERRORS:
        return True


def _check_lines(file: BinaryIO | io.BufferedReader, checked: _Checked) -> Iterator[_Record]:
    lines = _split_lines(file, checked)
    header = next(lines, b"")
    _check_header(header)
    for line in lines:
        try:
            record = checked.add(line)
        except _LinesChanged as exc:
            raise DumpDamaged(str(exc)) from exc
        except RecordRefused as exc:
            raise DumpDamaged(f"Line {checked.line_number}: {exc}. {checked.extent}") from exc
        if record is not None:
            yield record
        elif checked.has_footer:
            break
    else:
        raise DumpDamaged(f"The dump is cut off: it has no footer. {checked.extent}")
    checked.chain.add(header)
    checked.signature = _find_signature(next(lines, None))
    if next(lines, None) is not None:
        raise DumpDamaged("The dump has data after its footer.")


def _find_signature(line: bytes | None) -> JsonObject | None:
    """Return the record of the line after the footer, if there is one. Raises DumpDamaged."""
    if line is None:
        return None
    try:
        record = parse_line(line)
    except RecordRefused:
        record = {}
    if record.get(RECORD) != SIGNATURE:
        raise DumpDamaged("The dump has data after its footer.")
    return record


def _split_lines(file: BinaryIO | io.BufferedReader, checked: _Checked) -> Iterator[bytes]:
    try:
        while line := file.readline(MAX_LINE_BYTES):
            checked.line_number += 1
            if len(line) == MAX_LINE_BYTES:
                raise DumpDamaged(
                    f"Line {checked.line_number} is longer than {MAX_LINE_BYTES:,} bytes. {checked.extent}"
                )
            if not line.endswith(b"\n"):
                raise DumpDamaged(
                    f"The dump is cut off: line {checked.line_number} has no end. {checked.extent}"
                )
            yield line
    except _READ_ERRORS as exc:
        raise DumpDamaged(
            f"The compressed dump is cut off or altered ({exc}). {checked.extent}"
        ) from exc


def _check_header(line: bytes) -> None:
    try:
        header = parse_line(line)
    except RecordRefused:
        header = {}
    if header.get("format") != FORMAT:
        raise DumpDamaged(f"This is not a dump: its first line is not a header of {FORMAT}.")
    if header.get("version") != VERSION:
        raise DumpDamaged(
            f"The dump has version {header.get('version')!r} of its format, this program reads "
            f"{VERSION}: import it with the version of the program that made it, or a newer one."
        )


class _LinesChanged(RecordRefused):
    """Lines do not match a value that was computed of them. The message says which."""


class _Checked:
    """The state of the check: what the lines read so far have proved."""

    def __init__(self) -> None:
        self.line_number = 0
        self.chain = LineChain()
        self.has_footer = False
        self.signature: JsonObject | None = None
        self._chained_line = 2  # up to which the chain has been compared
        self._tallies = {kind: Tally() for kind in KINDS}
        self._last: tuple[RecordKind, Row] | None = None
        self._chained = ""  # the records up to there, in words
        self._logs = _Logs()

    @property
    def extent(self) -> str:
        """Describe what is before the present line: what the chain proves, and what could be read."""
        read = self._describe_records()
        if not self._chained:
            return f"Before it {read} could be read; whether they were changed is not known."
        if self._chained == read:
            return f"The {read} are as they were exported."
        return (
            f"Before it {read} could be read. Of these the first {self._chained} are as they were exported; "
            "whether the others were changed is not known."
        )

    def _describe_records(self) -> str:
        count = sum(tally.count for tally in self._tallies.values())
        if self._last is None:
            return f"{count} records"
        kind, row = self._last
        return f"{count} records (to the {kind.describe(row)})"

    def add(self, line: bytes) -> _Record | None:
        """Return the record of a line; None for the footer, and for the chain's value. Raises
        RecordRefused."""
        fields = parse_line(line)
        name = fields.get(RECORD)
        if name == FOOTER:
            self._check_footer(fields)
            if CHAIN in fields:  # dumps of older versions have none
                self._check_chain(fields[CHAIN])
            self.has_footer = True
            self.chain.add(line)
            return None
        if name == CHAIN:
            self._check_chain(fields.get("sha256"))
            return None
        kind = KINDS_BY_NAME.get(name) if isinstance(name, str) else None
        if kind is None:
            raise RecordRefused(f"is of an unknown kind: {name!r}")
        row = to_row(kind, fields)
        if line not in (to_line(kind, row), to_line(kind, row, has_all_nulls=True)):
            raise RecordRefused(f"is not written in the canonical form of a {kind.name}")
        self._check_order(kind, row)
        self._logs.add(kind, row)
        self._tallies[kind].add(line)
        self.chain.add(line)
        self._last = kind, row
        return _Record(kind, row, len(line))

    def _check_order(self, kind: RecordKind, row: Row) -> None:
        if self._last is None:
            return
        last_kind, last_row = self._last
        if kind is last_kind:
            is_behind = kind.key_of(row) > kind.key_of(last_row)
        else:
            is_behind = KINDS.index(kind) > KINDS.index(last_kind)
        if not is_behind:
            raise RecordRefused(f"the {kind.describe(row)} is out of order")

    def _check_chain(self, said: JsonValue) -> None:
        """Compare the chain. Raises RecordRefused, which says between which lines it is broken."""
        if said != self.chain.head:
            raise self._make_changed("the value of the hash chain does not match")
        self._chained_line = self.line_number + 1
        self._chained = self._describe_records()

    def _make_changed(self, what: str) -> _LinesChanged:
        """Return the error of a line that does not match those before it."""
        before = f" The {self._chained} before are as they were exported." if self._chained else ""
        return _LinesChanged(
            f"Line {self.line_number}: {what}: something in the lines {self._chained_line} to "
            f"{self.line_number} was changed, removed or inserted.{before}"
        )

    def _check_footer(self, footer: JsonObject) -> None:
        said = footer.get("kinds")
        found = _summarize(self._tallies)
        if said == found:
            return
        # Kinds that a dump of an older version lacks are empty.
        given: JsonObject = dict(_summarize({kind: Tally() for kind in KINDS}))
        given |= said if isinstance(said, dict) else dict.fromkeys(given)
        if given == found:
            return
        wrong = [name for name, summary in found.items() if given.get(name) != summary]
        raise self._make_changed(
            f"the footer's counts or checksums do not match for: {', '.join(wrong) or 'unknown kinds'}"
        )


class _Logs:
    """Check that the seqs of each session go up by one from its first_seq in the order of the ids.
    Stores number messages so, and all code that reads logs relies on it."""

    def __init__(self) -> None:
        self._ends: dict[str, int] = {}

    def add(self, kind: RecordKind, row: Row) -> None:
        """Raise RecordRefused for a row that cannot follow in its log."""
        if kind is SESSION:
            self._ends[row[0]] = row[kind.columns.index("first_seq")] - 1
        elif kind is MESSAGE or kind is CURSOR:
            session_id = row[kind.columns.index("session_id")]
            if session_id not in self._ends:
                raise RecordRefused(f"the {kind.describe(row)} has no session in the dump")
            if kind is MESSAGE:
                self._add_message(session_id, row[kind.columns.index("seq")])

    def _add_message(self, session_id: str, seq: int) -> None:
        expected = self._ends[session_id] + 1
        if seq != expected:
            raise RecordRefused(
                f"the session {session_id!r} continues with seq {seq} instead of {expected}"
            )
        self._ends[session_id] = seq
