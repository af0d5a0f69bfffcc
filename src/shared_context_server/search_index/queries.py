"""Make the engine's queries: which documents may match, for one audience.

A document's score estimates what the scorer will give it: each term adds its weight, or a part of it
if only a similar term is there. The estimate only chooses the candidates. So a word counts once,
however often it stands in a text and however long the text is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from shared_context_server.models import MemoryAddress, Visibility
from shared_context_server.search_index.audience import CallerKeys
from shared_context_server.search_index.documents import (
    CONTENT,
    METADATA,
    ORDER,
    Kind,
    SoughtTerm,
    TextFields,
    is_word,
    memory_key,
)
from shared_context_server.storage.codec import encode_time

if TYPE_CHECKING:
    import tantivy

# What a similar term counts of the term itself, as the scorer has it.
_LONGER = 0.92
_CONTAINING = 0.85
_MAX_TYPO = 0.9
_ORDER = 0.03  # for all words next to each other in the query's order

MIN_COMMON_PREFIX_CHARS = 4  # of a common word: a shorter one begins too many others
MIN_CONTAINED_CHARS = 3
MAX_CONTAINED_TERMS = 8  # of a query: for which longer words that contain them are looked up
MAX_WALKED_TERMS = 3  # of a query; each takes up to a fifth of a second at a million messages


ContainingWords = Callable[[str], list[str]]
"""Returns words of the index that contain a text."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which documents a search is about. `session_id` None: all that `keys` allow."""

    keys: CallerKeys
    kinds: tuple[Kind, ...]
    session_id: str | None = None
    sender: str | None = None
    visibility: Visibility | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class CandidateQuery:
    """A query for candidates. `neighbours`: for what stands next to each other in it, the terms in all
    orders in which a text may have them.
    `frequent`: terms that occur in many texts that the caller may see; `common`: in so many that
    fewer similar words are looked for. `min_share`: how much of the
    terms' weight a document needs. `enough`: with fewer candidates, all words of the index are
    walked for those that contain one of the terms. `newest_first`: of all that reach it the newest,
    instead of the best."""

    terms: Sequence[SoughtTerm]
    scope: Scope
    limit: int
    enough: int = 1
    neighbours: Sequence[Sequence[Sequence[str]]] = ()
    frequent: frozenset[str] = frozenset()
    common: frozenset[str] = frozenset()
    with_metadata: bool = True
    min_share: float = 0.0
    newest_first: bool = False


class QueryMaker:
    """Makes queries for indexes of one schema."""

    def __init__(self, schema: tantivy.Schema) -> None:
        import tantivy  # noqa: PLC0415 - see the package's docstring

        self._engine = tantivy
        self._schema = schema

    def find(
        self, query: CandidateQuery, list_containing: ContainingWords | None = None
    ) -> tantivy.Query:
        """Return the query for the candidates, best or newest first."""
        fields = (CONTENT, METADATA) if query.with_metadata else (CONTENT,)
        occur, make = self._engine.Occur, self._engine.Query
        contained = {} if list_containing is None else _list_contained(query, list_containing)
        needed, further = _split(query.terms, query.min_share)
        words = make.boolean_query(
            [
                (occur.Should, self._term(term, fields, query, contained.get(term.text, ())))
                for term in needed
            ],
            minimum_number_should_match=_count_needed(needed, further, query.min_share),
        )
        others = [self._term(term, fields, query, contained.get(term.text, ())) for term in further]
        near = [self._near(ways, _ORDER / len(query.neighbours)) for ways in query.neighbours]
        return make.boolean_query(
            [
                (occur.Must, words),
                *self._filters(query.scope),
                *[(occur.Should, other) for other in (*others, *near)],
            ]
        )

    def _near(self, ways: Sequence[Sequence[str]], score: float) -> tantivy.Query:
        make, occur = self._engine.Query, self._engine.Occur
        phrases = [make.phrase_query(self._schema, ORDER, list(way)) for way in ways]
        found = make.boolean_query([(occur.Should, phrase) for phrase in phrases])
        return make.const_score_query(found, score)

    def count_with(self, term: str, scope: Scope) -> tantivy.Query:
        """Return the query for the documents of the scope that have the term."""
        make = self._engine.Query
        has_term = make.term_query(self._schema, CONTENT.find(term), term, "basic")
        must = self._engine.Occur.Must
        return make.boolean_query([(must, has_term), *self._filters(scope)])

    def count_memory(self, addresses: Sequence[MemoryAddress], scope: Scope) -> tantivy.Query:
        """Return the query for those of the memory entries that are in the scope."""
        keys = [memory_key(address) for address in addresses]
        must = self._engine.Occur.Must
        return self._engine.Query.boolean_query(
            [(must, self._any("key", keys)), *self._filters(scope)]
        )

    def count(self, scope: Scope) -> tantivy.Query:
        """Return the query for all documents of the scope."""
        return self._engine.Query.boolean_query(self._filters(scope))

    def _filters(self, scope: Scope) -> list[tuple[tantivy.Occur, tantivy.Query]]:
        wanted = [self._any("viewers", scope.keys.viewers), self._any("kind", scope.kinds)]
        if scope.session_id is not None:
            wanted.append(self._any("session", (scope.session_id,)))
        if scope.keys.readers is not None:
            wanted.append(self._any("readers", scope.keys.readers))
        if scope.sender is not None:
            wanted.append(self._any("sender", (scope.sender,)))
        if scope.visibility is not None:
            wanted.append(self._any("visibility", (scope.visibility,)))
        if scope.start_time is not None or scope.end_time is not None:
            wanted.append(self._between(scope.start_time, scope.end_time))
        make = self._engine.Query
        return [(self._engine.Occur.Must, make.const_score_query(query, 0.0)) for query in wanted]

    def _any(self, field: str, values: Sequence[str]) -> tantivy.Query:
        make = self._engine.Query
        terms = [make.term_query(self._schema, field, str(value), "basic") for value in values]
        if len(terms) == 1:
            return terms[0]
        return make.boolean_query([(self._engine.Occur.Should, term) for term in terms])

    def _between(self, start: datetime | None, end: datetime | None) -> tantivy.Query:
        return self._engine.Query.range_query(
            self._schema,
            "time_us",
            self._engine.FieldType.Integer,
            None if start is None else encode_time(start),
            None if end is None else encode_time(end),
        )

    def _term(
        self,
        term: SoughtTerm,
        fields: Sequence[TextFields],
        query: CandidateQuery,
        containing: Sequence[str],
    ) -> tantivy.Query:
        make = self._engine.Query
        found: list[tantivy.Query] = []
        for text_fields in fields:
            for text in (term.text, *term.alternatives):
                exact = make.term_query(self._schema, text_fields.find(text), text, "basic")
                found.append(make.const_score_query(exact, term.weight))
            similar = self._similar(term, text_fields, query)
            if containing:
                longer = make.term_set_query(self._schema, text_fields.words, list(containing))
                similar.append((longer, _CONTAINING))
            found += [
                make.const_score_query(query, term.weight * share) for query, share in similar
            ]
        return make.disjunction_max_query(found)

    def _similar(
        self, term: SoughtTerm, fields: TextFields, query: CandidateQuery
    ) -> list[tuple[tantivy.Query, float]]:
        """Return queries for similar terms, each with what they count. What is expensive is left out
        where the term itself occurs in many texts: its like would hardly be among the best."""
        make = self._engine.Query
        similar: list[tuple[tantivy.Query, float]] = []
        field = fields.find(term.text)
        is_common = term.text in query.common
        if term.is_prefix and not (is_common and len(term.text) < MIN_COMMON_PREFIX_CHARS):
            for name in dict.fromkeys((field, fields.codes)):
                longer = make.fuzzy_term_query(self._schema, name, term.text, 0, prefix=True)
                similar.append((longer, _LONGER))
        for whole in term.alternatives:
            if not is_word(whole):  # such as the beginning of a hash, 67877ba
                longer = make.fuzzy_term_query(self._schema, fields.codes, whole, 0, prefix=True)
                similar.append((longer, _LONGER))
        for edits in range(1, term.max_edits + 1):
            if edits == 1 or term.text not in query.frequent:
                mistyped = make.fuzzy_term_query(self._schema, field, term.text, edits)
                share = min(_MAX_TYPO, 1 - edits / len(term.text))
                similar.append((mistyped, share))
        return similar

    def walk_containing(self, query: CandidateQuery) -> tantivy.Query | None:
        """Return the query for documents with a longer word that contains one of the query's words;
        None if these are too short. It looks at every word of the index, so it takes tenths of a
        second, and is meant for queries that have found little."""
        make, occur = self._engine.Query, self._engine.Occur
        texts = [term.text for term in query.terms if _can_be_contained(term)]
        if not texts:
            return None
        words = make.boolean_query(
            [
                (
                    occur.Should,
                    make.regex_query(self._schema, CONTENT.find(text), f".*{re.escape(text)}.*"),
                )
                for text in texts[:MAX_WALKED_TERMS]
            ]
        )
        return make.boolean_query([(occur.Must, words), *self._filters(query.scope)])


def _can_be_contained(term: SoughtTerm) -> bool:
    return term.is_prefix and len(term.text) >= MIN_CONTAINED_CHARS


def _list_contained(
    query: CandidateQuery, list_containing: ContainingWords
) -> dict[str, list[str]]:
    """Return the longer words that contain each term, for those that weigh most."""
    sought = [
        term
        for term in query.terms
        if _can_be_contained(term) and is_word(term.text) and term.text not in query.common
    ]
    sought.sort(key=lambda term: -term.weight)
    return {term.text: list_containing(term.text) for term in sought[:MAX_CONTAINED_TERMS]}


def _split(
    terms: Sequence[SoughtTerm], min_share: float
) -> tuple[list[SoughtTerm], list[SoughtTerm]]:
    """Return the terms of which a document needs at least one, and those that are too light to
    reach `min_share` among themselves. The engine passes over documents with only the latter."""
    left = min_share - 1e-6
    needed, further = list[SoughtTerm](), list[SoughtTerm]()
    for term in sorted(terms, key=lambda term: term.weight):
        left -= term.weight
        (needed if left <= 0 else further).append(term)
    return (needed, further) if needed else (further, [])


def _count_needed(
    needed: Sequence[SoughtTerm], further: Sequence[SoughtTerm], min_share: float
) -> int:
    """Return how many of the needed terms a document must have to reach `min_share` with all of the
    further ones."""
    share, count = sum(term.weight for term in further), 0
    for weight in sorted((term.weight for term in needed), reverse=True):
        if share >= min_share - 1e-6:
            break
        share += weight
        count += 1
    return max(1, count)
