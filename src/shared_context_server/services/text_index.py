"""Index texts in memory, so that a query is compared with each distinct word once, not with each text.

The words of the index that are close to the query's give each text a share of the query, as the
scorer counts it, without looking at the order of the words. The best texts by this share are then
scored in full. The others keep the score that they would have with the words far apart.
"""

from __future__ import annotations

import heapq
import sys
from array import array
from collections.abc import Set
from dataclasses import dataclass

from shared_context_server.services.scoring import (
    MAX_TYPO,
    MIN_SHARE_OF_PAIRS,
    ORDER,
    WORDS,
    Query,
    find_similar_in_steps,
    score_in_steps,
)
from shared_context_server.services.slices import Work, finish
from shared_context_server.services.terms import Kind, index_terms_in_steps, letter_pairs

SCORED_IN_FULL = 200  # texts of one query
POSTINGS_AT_ONCE = 20_000
TEXTS_AT_ONCE = 10_000
# What an entry costs beside the text itself, measured with sys.getsizeof on 64-bit CPython.
_TEXT_BYTES = 50
_WORD_BYTES = 250
_POSTING_BYTES = 5


@dataclass(frozen=True, slots=True)
class Match:
    """A text that matches. `index`: its position in the order of adding."""

    index: int
    score: float


class TextIndex:
    """An inverted index of texts in order of adding. `size_bytes`: its size in memory.

    Texts may be added while a match runs. The match may find them or not.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._terms: list[str] = []
        self._term_ids: dict[str, int] = {}
        self._postings: list[array[int]] = []
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> None:
        finish(self.add_in_steps(text))

    def add_in_steps(self, text: str) -> Work[None]:
        terms = yield from index_terms_in_steps(text)
        index = len(self._texts)
        for number, term in enumerate(terms):
            self._posting(term).append(index)
            self.size_bytes += _POSTING_BYTES
            if number % 1000 == 999:
                yield
        self._texts.append(text)
        self.size_bytes += sys.getsizeof(text) + _TEXT_BYTES

    def _posting(self, term: str) -> array[int]:
        term_id = self._term_ids.get(term)
        if term_id is None:
            term_id = len(self._terms)
            self._postings.append(array("I"))
            self._terms.append(term)
            self._term_ids[term] = term_id
            self.size_bytes += sys.getsizeof(term) + _WORD_BYTES
        return self._postings[term_id]

    def match(self, query: str, threshold: float) -> list[Match]:
        """Return every text that scores at least `threshold`: best first, the last added first
        among equals."""
        scores = finish(self.match_in_steps(Query(query), threshold))
        kept = [Match(index, score) for index, score in scores.items()]
        kept.sort(key=lambda match: (-match.score, -match.index))
        return kept

    def match_in_steps(
        self,
        query: Query,
        threshold: float,
        hidden: Set[int] = frozenset(),
        uncounted: Set[int] = frozenset(),
    ) -> Work[dict[int, float]]:
        """Return the scores of the texts that reach the threshold, by index.

        `hidden`: texts that are left out. `uncounted`: texts that do not count for how rare a word
        is. Texts that some readers may not see must be among them: a score would tell others of
        them.
        """
        count = len(self._texts)  # texts added meanwhile are left out
        if query.units:
            shares = yield from self._shares(query, count, uncounted)
        else:
            shares = dict.fromkeys(range(count), 0.0)  # the terms do not contain signs
        lowest = max(threshold, 0.01)
        likely = {
            index: share
            for index, share in shares.items()
            if index not in hidden
            if share * (WORDS + ORDER) >= lowest - 1 or not query.units or query.has_signs
        }
        yield
        scores = {index: round(share * WORDS, 2) for index, share in likely.items()}
        yield
        chosen = list(likely)
        if query.units and len(chosen) > SCORED_IN_FULL:
            best = heapq.nlargest(SCORED_IN_FULL, ((likely[index], index) for index in chosen))
            chosen = [index for _, index in best]
        yield
        full = yield from score_in_steps(query, [self._texts[index] for index in chosen])
        scores.update(zip(chosen, full, strict=True))
        return {index: score for index, score in scores.items() if score >= lowest}

    def _shares(self, query: Query, count: int, uncounted: Set[int]) -> Work[dict[int, float]]:
        """Return the share of the query that each text has, if it has any."""
        by_unit: list[dict[int, float]] = [{} for _ in query.units]
        similar = yield from find_similar_in_steps(query, self._terms)
        levels = sorted(
            (similarity, term, unit)
            for term, matches in similar.items()
            for unit, similarity in matches
        )
        done = 0
        for similarity, term, unit in levels:  # the best is written last
            posting = self._postings[self._term_ids[term]]
            for number in range(unit.first, unit.last + 1):
                by_unit[number].update(dict.fromkeys(posting, similarity))
            done += len(posting)
            if done > POSTINGS_AT_ONCE:
                done = 0
                yield
        for unit in query.units:
            if unit.kind is Kind.RUN:
                by_unit[unit.first] = yield from self._share_of_run(unit.term)
        query.weigh_by_counts(
            lambda term: self._count_texts(term, uncounted), count - len(uncounted)
        )
        shares: dict[int, float] = {}
        for found, weight in zip(by_unit, query.weights, strict=True):
            for index, similarity in found.items():
                shares[index] = shares.get(index, 0.0) + similarity * weight
            yield
        return {index: share for index, share in shares.items() if index < count}

    def _count_texts(self, term: str, uncounted: Set[int]) -> int:
        term_id = self._term_ids.get(term)
        if term_id is None:
            return 0
        posting = self._postings[term_id]
        return len(posting) - (len(uncounted & set(posting)) if uncounted else 0)

    def _share_of_run(self, run: str) -> Work[dict[int, float]]:
        """Return the share of the run that each text has at most. A wrong letter spoils two pairs."""
        pairs = list(dict.fromkeys(letter_pairs(run)))
        if len(pairs) == 1:
            terms = [term for term in self._terms if term.startswith(run)]
        else:
            pairs = pairs[:-1]
            terms = [pair for pair in pairs if pair in self._term_ids]
        yield
        found: dict[int, float] = {}
        for term in terms:
            for index in self._postings[self._term_ids[term]]:
                found[index] = found.get(index, 0.0) + 1 / len(pairs)
            yield
        return {
            index: 1.0 if share > 0.999 else MAX_TYPO * (1 + share) / 2
            for index, share in found.items()
            if share > MIN_SHARE_OF_PAIRS - 0.001
        }
