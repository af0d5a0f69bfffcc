"""Make the engine's queries: which documents may match, for one audience.

A document's score estimates what the scorer will give it: each term adds its weight, or a part of it
if only a similar term is there. The estimate only chooses the candidates. So a word counts once,
however often it stands in a text and however long the text is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from shared_context_server.models import MemoryAddress, Visibility
from shared_context_server.search_index.audience import CallerKeys
from shared_context_server.search_index.documents import Kind, SoughtTerm, memory_key
from shared_context_server.storage.codec import encode_time

if TYPE_CHECKING:
    import tantivy

# What a similar term counts of the term itself.
_LONGER = 0.92
_ONE_EDIT = 0.88
_TWO_EDITS = 0.75
_ORDER = 0.03  # for all words next to each other in the query's order

MIN_CONTAINED_CHARS = 3
MAX_CONTAINED_TERMS = 3  # of a query; each takes up to a fifth of a second at a million messages


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
    """A query for candidates. `pairs`: terms that stand next to each other in it.
    `known`: terms that occur in texts that the caller may see. `min_share`: how much of the terms' weight a document needs.
    `enough`: with fewer
    candidates, words within longer words are looked for too. `newest_first`: of all that reach it the newest, instead of the best."""

    terms: Sequence[SoughtTerm]
    scope: Scope
    limit: int
    enough: int = 1
    pairs: Sequence[tuple[str, str]] = ()
    known: frozenset[str] = frozenset()
    with_metadata: bool = True
    min_share: float = 0.0
    newest_first: bool = False


class QueryMaker:
    """Makes queries for indexes of one schema."""

    def __init__(self, schema: tantivy.Schema) -> None:
        import tantivy  # noqa: PLC0415 - see the package's docstring

        self._engine = tantivy
        self._schema = schema

    def find(self, query: CandidateQuery) -> tantivy.Query:
        """Return the query for the candidates, best or newest first."""
        fields = ("terms", "metadata") if query.with_metadata else ("terms",)
        occur, make = self._engine.Occur, self._engine.Query
        words = make.boolean_query(
            [(occur.Should, self._term(term, fields, query.known)) for term in query.terms],
            minimum_number_should_match=_count_needed(query.terms, query.min_share),
        )
        near = [
            make.const_score_query(
                make.phrase_query(self._schema, "terms", list(pair)), _ORDER / len(query.pairs)
            )
            for pair in query.pairs
        ]
        return make.boolean_query(
            [
                (occur.Must, words),
                *self._filters(query.scope),
                *[(occur.Should, pair) for pair in near],
            ]
        )

    def count_with(self, term: str, scope: Scope) -> tantivy.Query:
        """Return the query for the documents of the scope that have the term."""
        make = self._engine.Query
        has_term = make.term_query(self._schema, "terms", term, "basic")
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
        self, term: SoughtTerm, fields: Sequence[str], known: frozenset[str]
    ) -> tantivy.Query:
        make = self._engine.Query
        found: list[tantivy.Query] = []
        for field in fields:
            for text in (term.text, *term.alternatives):
                exact = make.term_query(self._schema, field, text, "basic")
                found.append(make.const_score_query(exact, term.weight))
            found += [
                make.const_score_query(query, term.weight * share)
                for query, share in self._similar(term, field, is_known=term.text in known)
            ]
        return make.disjunction_max_query(found)

    def _similar(
        self, term: SoughtTerm, field: str, *, is_known: bool
    ) -> list[tuple[tantivy.Query, float]]:
        """Return queries for similar terms, each with what they count. What is expensive is left
        out where the term itself occurs: then it is hardly a mistake."""
        make = self._engine.Query
        similar = []
        if term.is_prefix:
            longer = make.fuzzy_term_query(self._schema, field, term.text, 0, prefix=True)
            similar.append((longer, _LONGER))
        if term.max_edits > 0:
            similar.append((make.fuzzy_term_query(self._schema, field, term.text, 1), _ONE_EDIT))
        if term.max_edits > 1 and not is_known:
            similar.append((make.fuzzy_term_query(self._schema, field, term.text, 2), _TWO_EDITS))
        return similar

    def find_containing(self, query: CandidateQuery) -> tantivy.Query | None:
        """Return the query for documents with a longer word that contains one of the query's words;
        None if these are too short. It looks at every word of the index, so it takes tenths of a
        second, and is meant for queries that have found little."""
        make, occur = self._engine.Query, self._engine.Occur
        texts = [term.text for term in query.terms if term.is_prefix]
        patterns = [f".*{re.escape(text)}.*" for text in texts if len(text) >= MIN_CONTAINED_CHARS]
        if not patterns:
            return None
        words = make.boolean_query(
            [
                (occur.Should, make.regex_query(self._schema, "terms", pattern))
                for pattern in patterns[:MAX_CONTAINED_TERMS]
            ]
        )
        return make.boolean_query([(occur.Must, words), *self._filters(query.scope)])


def _count_needed(terms: Sequence[SoughtTerm], min_share: float) -> int:
    """Return how many of the terms a document needs at least to have `min_share` of the weight."""
    share, count = 0.0, 0
    for weight in sorted((term.weight for term in terms), reverse=True):
        if share >= min_share - 1e-6:
            break
        share += weight
        count += 1
    return max(1, count)
