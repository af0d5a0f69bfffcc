"""A hash chain over the lines of an exported file, and files whose every line carries it.

The value after a line is the SHA-256, in hex, of the value before it (nothing for the first line) and
of the bytes of the line with its line feed. So each value covers all that is before it.

In a file of this module each line is a JSON object whose last member is `chain`: the value of the line
without that member. The line behind the last one has `"record":"end"`, the number of lines, and `chain`
too, so that lines which are missing at the end are noticed. A signature may follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import BinaryIO

from pydantic_core import to_json

from shared_context_server.errors import CopyError
from shared_context_server.models import JsonObject
from shared_context_server.storage.transfer.copying import RecordRefused
from shared_context_server.storage.transfer.lines import RECORD, parse_line

END = "end"
MAX_LINE_BYTES = 64 * 1024 * 1024  # far above any record

_MEMBER = b',"chain":"'
_TAIL = b'"}\n'
_HASH_CHARS = 64
_TAIL_BYTES = len(_MEMBER) + _HASH_CHARS + len(_TAIL)


class FileDamaged(CopyError):
    """The file is not one of ours, is incomplete, or was altered."""


class LineChain:
    """The chain over the lines that were added so far."""

    def __init__(self) -> None:
        self.lines = 0
        self.head = ""

    def add(self, line: bytes) -> str:
        """Add a line with its line feed; return the value of the chain."""
        self.head = sha256(self.head.encode() + line).hexdigest()
        self.lines += 1
        return self.head

    def write(self, document: bytes) -> bytes:
        """Return the line of a JSON object that has members, with its member `chain`."""
        chain = self.add(document + b"\n")
        return document[:-1] + _MEMBER + chain.encode() + _TAIL

    def write_end(self, **facts: object) -> bytes:
        """Return the last line. `facts`: what else it says."""
        return self.write(to_json({RECORD: END, "count": self.lines, **facts}))


def read_chained(file: BinaryIO) -> Iterator[tuple[int, JsonObject, str]]:
    """Yield number, object and chain value of each line, all of them checked, up to the last line, and then
    the signature if there is one. Raises FileDamaged, which says where."""
    chain = LineChain()
    is_ended = is_signed = False
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        record = _parse(line, number)
        if is_signed or (is_ended and record.get(RECORD) != "signature"):
            raise FileDamaged(f"Line {number} is behind the end.")
        if is_ended:
            is_signed = True
        else:
            _check(line, number, chain)
            is_ended = record.get(RECORD) == END
            if is_ended and record.get("count") != chain.lines - 1:
                raise FileDamaged(f"Line {number} says that there are {record.get('count')} lines.")
        yield number, record, chain.head
    if not is_ended:
        raise FileDamaged(f"The file is cut off behind line {number}.")


def _parse(line: bytes, number: int) -> JsonObject:
    if not line.endswith(b"\n"):
        raise FileDamaged(f"The file is cut off: line {number} has no end.")
    try:
        return parse_line(line)
    except RecordRefused as exc:
        raise FileDamaged(f"Line {number} {exc}.") from exc


def _check(line: bytes, number: int, chain: LineChain) -> None:
    tail = line[-_TAIL_BYTES:]
    if not (tail.startswith(_MEMBER) and tail.endswith(_TAIL)):
        raise FileDamaged(f"Line {number} does not end with the hash of the chain.")
    said = tail[len(_MEMBER) : -len(_TAIL)].decode(errors="replace")
    if chain.add(line[:-_TAIL_BYTES] + b"}\n") != said:
        raise FileDamaged(
            f"Line {number} was changed or inserted, or a line just before it was removed or moved. "
            "All lines before it are as they were written."
        )
