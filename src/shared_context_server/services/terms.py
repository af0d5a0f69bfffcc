"""Make the terms that the search index stores for a text, and those that it looks up for a query."""

from __future__ import annotations

from dataclasses import dataclass

from shared_context_server.services.words import is_unspaced, normalize, split_words

MAX_TERM_CHARS = 40  # a longer term is cut, in texts and queries alike
MAX_TERMS = 20_000  # of one text
MIN_PREFIX_CHARS = 3
MIN_TYPO_CHARS = 4
MIN_TWO_TYPOS_CHARS = 7
_MAX_WEIGHT = 8


@dataclass(frozen=True, slots=True)
class QueryTerm:
    """A term of a query. See search_index.documents.SoughtTerm."""

    text: str
    max_edits: int
    is_prefix: bool
    weight: float
    alternatives: tuple[str, ...] = ()


def index_terms(text: str) -> list[str]:
    """Return the distinct terms to store for a text."""
    terms: dict[str, None] = {}
    for word in split_words(normalize(text)):
        if is_unspaced(word):
            terms.update(dict.fromkeys(_pairs(word)))
            continue
        terms[word[:MAX_TERM_CHARS]] = None
        if "_" in word:
            terms.update((part[:MAX_TERM_CHARS], None) for part in word.split("_") if part)
        if len(terms) >= MAX_TERMS:
            break
    return list(terms)[:MAX_TERMS]


def query_terms(query: str) -> list[QueryTerm]:
    """Return the terms to look up. Their weights add up to 1."""
    weights: dict[str, float] = {}
    for word in split_words(normalize(query)):
        weight = float(min(len(word), _MAX_WEIGHT))
        if is_unspaced(word):
            pairs = dict.fromkeys(word[place : place + 2] for place in range(max(1, len(word) - 1)))
            for pair in pairs:
                weights.setdefault(pair, weight / len(pairs))
        else:
            weights.setdefault(word[:MAX_TERM_CHARS], weight)
    total = sum(weights.values())
    return [
        QueryTerm(
            term,
            max_edits=_max_edits(term),
            is_prefix=not term.isdecimal()
            and (len(term) >= MIN_PREFIX_CHARS or (is_unspaced(term) and len(term) == 1)),
            weight=weight / total,
        )
        for term, weight in weights.items()
    ]


def _pairs(run: str) -> list[str]:
    """Return each letter of a run with the next one, and the last one alone."""
    return [run[place : place + 2] for place in range(len(run))]


def _max_edits(term: str) -> int:
    if len(term) < MIN_TYPO_CHARS or any(map(str.isdigit, term)) or is_unspaced(term):
        return 0
    return 1 if len(term) < MIN_TWO_TYPOS_CHARS else 2
