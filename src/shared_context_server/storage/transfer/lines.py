"""Write records as lines of JSON, and read them. Equal records give equal bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from shared_context_server.models import JsonObject
from shared_context_server.storage.codec import Row, decode_json_exactly
from shared_context_server.storage.transfer.copying import RecordRefused
from shared_context_server.storage.transfer.records import RecordKind

RECORD = "record"
"""The field of a line that names the kind of its record."""

NUL = "\0"
NUL_SUBSTITUTE = "\N{REPLACEMENT CHARACTER}"


def to_line(kind: RecordKind, row: Row, *, has_all_nulls: bool = False) -> bytes:
    """Return the canonical line of a row: JSON without spaces, `record` first, then the fields in
    order, non-ASCII characters as they are, and a line feed. A later field that is null is left
    out, unless the line `has_all_nulls`, as some versions have written it."""
    record: JsonObject = {RECORD: kind.name}
    for (name, codec), value in zip(kind.fields.items(), row, strict=True):
        spelt = codec.to_field(value)
        if has_all_nulls or spelt is not None or name not in kind.later_fields:
            record[name] = spelt
    return to_json(record) + b"\n"


def parse_line(line: bytes) -> JsonObject:
    """Return the JSON object of a line. Raises RecordRefused."""
    try:
        parsed = decode_json_exactly(line)
    except (ValueError, RecursionError) as exc:
        raise RecordRefused(f"is not JSON ({exc})") from exc
    if not isinstance(parsed, dict):
        raise RecordRefused("is not a JSON object")
    return parsed


def to_row(kind: RecordKind, record: JsonObject) -> Row:
    """Return the row of a record, which may include its `record` field. Raises RecordRefused."""
    given = (record.keys() - {RECORD}) | kind.later_fields
    if given != kind.fields.keys():
        wrong = ", ".join(sorted(given ^ kind.fields.keys()))
        raise RecordRefused(f"is not a valid {kind.name}: missing or unknown {wrong}")
    row = []
    for name, codec in kind.fields.items():
        try:
            row.append(codec.to_column(record.get(name)))
        except (ValueError, TypeError, OverflowError) as exc:
            raise RecordRefused(f"is not a valid {kind.name}: {name}: {exc}") from exc
    return tuple(row)


def replace_nul(kind: RecordKind, row: Row) -> tuple[Row, int]:
    """Replace U+0000, which PostgreSQL cannot store; return the row and the number of replacements.

    In free text it becomes U+FFFD. In JSON it is an escape, which is text. Anywhere else it is part
    of a name, which must not change: raises RecordRefused.
    """
    if not any(isinstance(value, str) and NUL in value for value in row):
        return row, 0
    replaced = 0
    kept = []
    for name, value in zip(kind.columns, row, strict=True):
        if isinstance(value, str) and NUL in value:
            if name not in kind.free_text:
                raise RecordRefused(
                    f"The {kind.describe(row)} has U+0000 in {name}, which the destination cannot "
                    "store. Delete it, or write it again under another name, at the source."
                )
            replaced += value.count(NUL)
            value = value.replace(NUL, NUL_SUBSTITUTE)
        kept.append(value)
    return tuple(kept), replaced


@dataclass(slots=True)
class Tally:
    """Counts lines, and computes the SHA-256 of all of them in order."""

    count: int = 0
    _digest: Any = field(default_factory=hashlib.sha256, repr=False)

    def add(self, line: bytes) -> None:
        self.count += 1
        self._digest.update(line)

    @property
    def sha256(self) -> str:
        checksum: str = self._digest.hexdigest()
        return checksum
