"""Make the terms of a query: what to look up in an index, how much it counts, and with which typos."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from shared_context_server.services.terms import (
    Kind,
    Token,
    analyse,
    join_tokens,
    letter_pairs,
    list_letters,
    split_chunks,
)

PAIRED_WORDS = 6  # a query of at most so many words also finds neighbours written as one word
MIN_PREFIX_CHARS = 3
MIN_TYPO_CHARS = 4  # a shorter word is found only as written
MIN_TWO_TYPOS_CHARS = 7


@dataclass(frozen=True, slots=True)
class QueryTerm:
    """A term of a query, for looking up candidates.

    text: the term to look up.
    alternatives: terms of which each counts as this one: the identifiers that it is part of.
    max_edits: the largest distance at which a term of a text still matches. Two letters that were
        swapped count as one edit. 0: only the term itself.
    is_prefix: terms that begin with it match as well.
    weight: how much of the query it is. The weights of a query add up to 1.
    """

    text: str
    kind: Kind
    max_edits: int
    is_prefix: bool
    weight: float
    alternatives: tuple[str, ...] = ()

    @property
    def is_fuzzy(self) -> bool:
        return self.max_edits > 0


def query_terms(query: str) -> list[QueryTerm]:
    """Return the terms to look up for a query. None if it has no letter, digit or emoji."""
    tokens = list_query_tokens(query)
    wholes = [token for token in tokens if token.kind is Kind.WHOLE]
    found: dict[str, QueryTerm] = {}
    for token in tokens:
        if token.kind is Kind.WHOLE:
            continue
        weight = word_weight(token.term)
        if token.kind is Kind.RUN:
            pairs = list(dict.fromkeys(letter_pairs(token.term)))
            if len(pairs) > 1:
                pairs = [pair for pair in pairs if len(list_letters(pair)) > 1]
            for pair in pairs:
                is_letter = len(list_letters(pair)) == 1
                found.setdefault(pair, QueryTerm(pair, Kind.RUN, 0, is_letter, weight / len(pairs)))
        else:
            within = tuple(
                dict.fromkeys(
                    whole.term
                    for whole in wholes
                    if whole.first <= token.first and token.last <= whole.last
                )
            )
            found.setdefault(
                token.term,
                QueryTerm(
                    token.term,
                    token.kind,
                    max_edits(token.term),
                    can_be_prefix(token.term),
                    weight,
                    within,
                ),
            )
    total = sum(term.weight for term in found.values())
    return [
        QueryTerm(
            term.text,
            term.kind,
            term.max_edits,
            term.is_prefix,
            term.weight / total,
            term.alternatives,
        )
        for term in found.values()
    ]


def list_query_tokens(query: str) -> list[Token]:
    """Return the tokens of a query, the parts counted through all of it. In a short query, words
    that stand next to each other also come as one, since others may have written them so."""
    tokens: list[Token] = []
    part = 0
    for chunk, start in split_chunks(query):
        found, parts = analyse(chunk)
        tokens += [
            token._replace(
                start=start + token.start,
                end=start + token.end,
                first=part + token.first,
                last=part + token.last,
            )
            for token in found
        ]
        part += parts
    words = [token for token in tokens if token.kind in (Kind.WORD, Kind.NUMBER)]
    if len(words) <= PAIRED_WORDS:
        known = {(token.first, token.last) for token in tokens}
        for one, next_one in pairwise(words):
            if one.last == next_one.first and (one.first, next_one.last) not in known:
                tokens.append(join_tokens((one, next_one)))
    return tokens


def has_digit(term: str) -> bool:
    return any(map(str.isdigit, term))


def max_edits(term: str) -> int:
    """Return how many typos a word may have. One with a digit is a number, a code or a hash, which
    names another thing if a character differs."""
    if len(term) < MIN_TYPO_CHARS or has_digit(term) or not term[-1].isalpha():
        return 0
    return 1 if len(term) < MIN_TWO_TYPOS_CHARS else 2


def can_be_prefix(term: str) -> bool:
    """Return whether longer words that begin with this one match. A Korean letter is a syllable, and
    particles follow the word, so that two are enough."""
    enough = 2 if "\uac00" <= term[0] <= "\ud7a3" else MIN_PREFIX_CHARS
    return len(term) >= enough and not term.isdecimal() and term[-1].isalnum()


def word_weight(term: str) -> float:
    """Return how much a word of this length counts, before how rare it is."""
    return float(min(len(term), 8) + 4)
