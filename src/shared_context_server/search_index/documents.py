"""The documents of the search index, and its schema.

A document is one message or one memory entry. Their texts are stored only as terms; the store has
the texts themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from shared_context_server.models import MemoryAddress
from shared_context_server.search_index.audience import Audience

if TYPE_CHECKING:
    import tantivy

FORMAT = 4
"""Changes with the schema and with the terms that are stored. An index of another format is rebuilt."""

# Equal matches come newest first: a document's score is multiplied by its recency, which grows a
# little with its id. Scores have 24 bits, so a smaller step would not tell neighbours apart.
_RECENCY_STEP = 2e-8
_FULL_STEPS = 5_000_000
_LATER_STEP = 2e-10

# Thai is the first of the scripts in Unicode that are written without spaces between words or that
# have thousands of letters.
_LARGE_SCRIPTS = "\u0e00"


class Kind(StrEnum):
    MESSAGE = "message"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class TextFields:
    """The fields for the terms of one text. `words`: terms in which a typo is possible. `codes`: terms
    with a digit, and terms in scripts with very many letters.

    They have a dictionary each, because a search for similar words goes through the branches of a
    dictionary. Thousands of letters at its root make that twenty times as slow.
    """

    words: str
    codes: str

    def __iter__(self) -> Iterator[str]:
        return iter((self.words, self.codes))

    def find(self, term: str) -> str:
        """Return the field that has the term."""
        return self.words if is_word(term) else self.codes


CONTENT = TextFields("terms", "codes")
METADATA = TextFields("metadata", "metadata_codes")
ORDER = "order"
"""The field that has the words and codes of the content as they follow each other, with their
positions, for finding neighbours."""


def is_word(term: str) -> bool:
    """Whether a typo in this term is possible; see TextFields."""
    return term < _LARGE_SCRIPTS and (term.isalpha() or not any(map(str.isdigit, term)))


class SoughtTerm(Protocol):
    """A term to look up. `alternatives`: terms that count as this one. `max_edits`: how many letters
    may differ. `is_prefix`: longer terms that begin with it count too. `weight`: its part of the
    query; all weights add up to 1."""

    @property
    def text(self) -> str: ...
    @property
    def alternatives(self) -> Sequence[str]: ...
    @property
    def max_edits(self) -> int: ...
    @property
    def is_prefix(self) -> bool: ...
    @property
    def weight(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Document:
    """What the index stores of a message or a memory entry. `number`: the message's id, 0 for
    memory. `terms`: what its content is found by; `order`: its words as they follow each other.
    `address`: of memory, None for messages."""

    kind: Kind
    number: int
    session_id: str | None
    audience: Audience
    sender: str
    visibility: str
    time_us: int
    terms: Sequence[str]
    metadata_terms: Sequence[str]
    order: Sequence[str] = ()
    address: MemoryAddress | None = None


def make_schema() -> tantivy.Schema:
    import tantivy  # noqa: PLC0415 - see the package's docstring

    builder = tantivy.SchemaBuilder()
    builder.add_text_field(ORDER, tokenizer_name="whitespace", index_option="position")
    for name in (*CONTENT, *METADATA):
        builder.add_text_field(name, tokenizer_name="whitespace", index_option="basic")
    for name in ("kind", "key", "session", "viewers", "readers", "sender", "visibility"):
        builder.add_text_field(name, tokenizer_name="raw", index_option="basic")
    builder.add_text_field("stored", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_unsigned_field("number", indexed=True, fast=True)
    builder.add_integer_field("time_us", fast=True)
    builder.add_float_field("recency", fast=True)
    return builder.build()


def to_tantivy(document: Document) -> tantivy.Document:
    import tantivy  # noqa: PLC0415 - see the package's docstring

    made = tantivy.Document()
    _add_terms(made, CONTENT, document.terms)
    _add_terms(made, METADATA, document.metadata_terms)
    made.add_text(ORDER, " ".join(document.order))
    made.add_text("kind", document.kind)
    if document.session_id is not None:
        made.add_text("session", document.session_id)
    for key in document.audience.viewers:
        made.add_text("viewers", key)
    for key in document.audience.readers:
        made.add_text("readers", key)
    made.add_text("sender", document.sender)
    if document.visibility:
        made.add_text("visibility", document.visibility)
    if document.address is not None:
        made.add_text("key", memory_key(document.address))
        made.add_text("stored", json.dumps(asdict(document.address)))
    made.add_unsigned("number", document.number)
    made.add_integer("time_us", document.time_us)
    made.add_float("recency", _recency(document.number))
    return made


def _add_terms(made: tantivy.Document, fields: TextFields, terms: Sequence[str]) -> None:
    words, codes = list[str](), list[str]()
    for term in terms:
        (words if is_word(term) else codes).append(term)
    if words:
        made.add_text(fields.words, " ".join(words))
    if codes:
        made.add_text(fields.codes, " ".join(codes))


def memory_key(address: MemoryAddress) -> str:
    return json.dumps([address.session_id, address.owner, address.key])


def _recency(number: int) -> float:
    return (
        1.0 + min(number, _FULL_STEPS) * _RECENCY_STEP + max(0, number - _FULL_STEPS) * _LATER_STEP
    )
