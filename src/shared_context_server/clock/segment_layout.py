"""Declares which fields a shared memory segment has. Writers and readers of it share the layout.

Numbers are little-endian. Each field is at a multiple of its size, where a C compiler puts it too.
Some names have a meaning:

- `sequence` (u32): the seqlock's word, odd while the writer writes. Each layout has it.
- `pid` (u32): the writer's process; 0 after it has closed the segment.
- `version` (u32): of the layout. 0 means that nothing was written yet.
- `record_size` (u32): of all fields, in bytes.
- `monotonic_ns` (u64): CLOCK_MONOTONIC at the write, from which readers find the age.
- `flags` (u32): bit 0 says that the values are valid.
"""

from __future__ import annotations

import struct
from collections import namedtuple
from collections.abc import Iterable, Mapping
from keyword import iskeyword

from shared_context_server.clock.errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

MAX_SIZE = 65_536
"""Bytes of a record. A reader copies the whole record at each read."""
MAX_NAME = 200
MAX_VERSION = 2**32 - 1

SEQUENCE = "sequence"
HEADER = {
    "sequence": "I",
    "pid": "I",
    "version": "I",
    "record_size": "I",
    "monotonic_ns": "Q",
}
"""The first 24 bytes of a segment whose layout does not say where these fields are."""

_MEANINGS = {**HEADER, "flags": "I"}
_CODES = frozenset("bBhHiIqQfd?")
_WORD_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
NAME_CHARACTERS = _WORD_CHARACTERS | frozenset(".-")
MAX_FIELD = 100


class SegmentLayout:
    """The fields of a segment: a header of 24 bytes, then `fields`, which maps names to codes.

    A code is one of `struct`'s: `b B h H i I q Q` (integers of 1, 2, 4 and 8 bytes, signed and
    unsigned), `f d` (floats), `?` (bool) or a number and `s` (so many bytes). Change `version` when
    the fields change: readers refuse a segment of another version. Raises OptionError.
    """

    def __init__(self, name: str, fields: Mapping[str, str], *, version: int = 1) -> None:
        for field in fields:
            if field in HEADER:
                raise OptionError(f"field {field!r}", "the header has this field")
        if not fields:
            raise OptionError("fields", "must name at least one field")
        if not 1 <= version <= MAX_VERSION:
            raise OptionError("version", f"{version} is not between 1 and {MAX_VERSION}")
        self._declare(name, {**HEADER, **fields}, version, is_verified=True)

    @classmethod
    def exact(
        cls,
        name: str,
        fields: Mapping[str, str],
        *,
        version: int = 0,
        odd_while_writing: bool = True,
        lock_name: str = "",
    ) -> Self:
        """A layout without a header, to describe a segment whose form is given.

        `fields` are all fields from byte 0 on, among them `sequence`. `odd_while_writing=False`: its
        writer only counts its writes, so readers cannot be sure to get one whole record, and mark
        what they read as not verified. Segments of one writer can share the lock of `lock_name`.
        """
        layout = cls.__new__(cls)
        if SEQUENCE not in fields:
            raise OptionError("fields", "must name 'sequence'")
        layout._declare(name, fields, version, is_verified=odd_while_writing, lock_name=lock_name)
        return layout

    def _declare(
        self,
        name: str,
        fields: Mapping[str, str],
        version: int,
        *,
        is_verified: bool,
        lock_name: str = "",
    ) -> None:
        if not 1 <= len(name) <= MAX_NAME or not set(name) <= NAME_CHARACTERS:
            raise OptionError(
                "name", f"{name!r:.80} must be 1 to {MAX_NAME} letters, digits, '.', '_' or '-'"
            )
        self.name = name
        self.version = version
        self.is_verified = is_verified
        self.lock_name = lock_name or f"{name}_lock"
        self.fields = dict(fields)
        self.offsets = _find_offsets(fields)
        """The byte at which each field begins."""
        self.struct = struct.Struct("<" + "".join(fields.values()))
        self.size = self.struct.size
        if self.size > MAX_SIZE:
            raise OptionError("fields", f"are {self.size} bytes in all, at most {MAX_SIZE} allowed")
        self.indexes = {field: index for index, field in enumerate(fields)}
        names = [field for field in fields if field not in HEADER]
        self.values_type = _make_values_type(names)
        self.value_indexes = tuple(self.indexes[field] for field in names)
        self._lenient = [field for field in names if fields[field][-1] in "s?"]
        self.sequence_word = self.offsets[SEQUENCE] // 4
        """Index of the sequence number among the record's 32-bit words."""

    def pack(self, values: Mapping[str, Any]) -> bytes:
        """A record of these values; absent ones are 0. Raises OptionError for a wrong value."""
        for field in self._lenient:
            _check_exactly(field, self.fields[field], values[field])
        row = [values.get(field, _ZERO.get(code[-1], 0)) for field, code in self.fields.items()]
        try:
            return self.struct.pack(*row)
        except (struct.error, TypeError, OverflowError) as exc:
            for (field, code), value in zip(self.fields.items(), row, strict=True):
                _check_value(field, code, value)
            raise OptionError("values", str(exc)) from exc

    def require_names(self, given: Iterable[str]) -> None:
        """Raises OptionError unless `given` are the names of all values."""
        names = self.values_type._fields
        given = set(given)
        if unknown := given.difference(names):
            raise OptionError(f"field {min(unknown)!r}", f"segment {self.name!r} has no such field")
        if missing := [name for name in names if name not in given]:
            raise OptionError(f"field {missing[0]!r}", "is missing: a record has all fields")


_ZERO = {"s": b""}


def _make_values_type(names: list[str]) -> Any:
    return namedtuple("Values", names, rename=False)


def _find_offsets(fields: Mapping[str, str]) -> dict[str, int]:
    offsets, at = {}, 0
    for field, code in fields.items():
        option = f"field {field!r:.80}"
        if not _is_field_name(field):
            raise OptionError(option, "must be a letter, then letters, digits or '_', no keyword")
        if not _is_code(code):
            raise OptionError(option, f"{code!r:.40} is not one of b B h H i I q Q f d ? or 16s")
        if _MEANINGS.get(field, code) != code:
            raise OptionError(option, f"has code {code!r}, but its code is {_MEANINGS[field]!r}")
        size = 1 if code.endswith("s") else struct.calcsize(f"<{code}")
        if at % size:
            raise OptionError(
                option,
                f"begins at byte {at}, which is not a multiple of its size {size}: "
                "declare larger fields before smaller ones",
            )
        offsets[field] = at
        at += struct.calcsize(f"<{code}")
    return offsets


def _is_field_name(field: str) -> bool:
    return (
        1 <= len(field) <= MAX_FIELD
        and set(field) <= _WORD_CHARACTERS
        and field[0] not in "0123456789_"
        and not iskeyword(field)
    )


def _is_code(code: str) -> bool:
    count = code[:-1]
    is_bytes = code.endswith("s") and 1 <= len(count) <= 5 and set(count) <= set("0123456789")
    return code in _CODES or (is_bytes and not count.startswith("0"))


def _check_exactly(field: str, code: str, value: object) -> None:
    """For codes at which `struct` shortens a text and takes anything for a truth value."""
    if code == "?":
        fits = isinstance(value, bool) or value in (0, 1)
    else:
        fits = isinstance(value, bytes | bytearray) and len(value) <= int(code[:-1])
    if not fits:
        raise OptionError(f"field {field!r}", f"{value!r:.80} does not fit code {code!r}")


def _check_value(field: str, code: str, value: object) -> None:
    try:
        struct.pack(f"<{code}", value)
    except (struct.error, TypeError, OverflowError) as exc:
        raise OptionError(f"field {field!r}", f"{value!r:.80} does not fit code {code!r}") from exc
