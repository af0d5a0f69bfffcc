"""Score how well texts match a query: compares words with RapidFuzz, so that a typo costs little.

The score of a text, 0–100:
- 99 if the query's words stand in it next to each other, in order; 100 if they do so as written
  (case apart);
- 98 if the query stands in it as written, within words; 97 if all its words do, anywhere;
- else the mean over the query's words of each word's best match among the text's words,
  weighted by word length (at most 8): 100 for the word itself, 90 for a longer word that
  contains it (3 letters at least), else RapidFuzz's normalized indel similarity
  (`rapidfuzz.fuzz.ratio`) from 70 up; times 0.97. Numbers match only themselves.
  In scripts without spaces a run of letters that contains the word has the word itself.

An index keeps every distinct word with the texts it occurs in, so a query is compared with
each distinct word once, not with each text; no text is left out.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from shared_context_server.services.slices import Work, finish
from shared_context_server.services.words import (
    is_unspaced,
    normalize,
    normalize_in_pieces,
    split_words,
)

VERBATIM = 100.0
PHRASE = 99.0
AS_WRITTEN = 98.0
ALL_WORDS = 97.0
CONTAINED = 90.0
MIN_SIMILARITY = 70.0
MIN_CONTAINED_LETTERS = 3
MAX_WORD_WEIGHT = 8
MAX_QUERY_WORDS = 32

COMPARED_AT_ONCE = 10_000  # words: RapidFuzz holds the interpreter for about a millisecond
SQUARE_OF_A_SHORT_WORD = 2_000
CHARS_AT_ONCE = 100_000
TEXTS_AT_ONCE = 64
# What an entry costs beside the text itself, measured with sys.getsizeof on 64-bit CPython.
_TEXT_BYTES = 50
_WORD_BYTES = 250
_POSTING_BYTES = 5


@dataclass(frozen=True, slots=True)
class Match:
    """A text that matches. `index`: its position in the order of adding."""

    index: int
    score: float


class Query:
    """A query, prepared for comparison with texts."""

    def __init__(self, text: str) -> None:
        self.text = normalize(text).strip()
        all_words = split_words(self.text)
        self.words = list(dict.fromkeys(all_words))
        self.phrase = f" {' '.join(all_words)} "


class TextIndex:
    """An inverted index of texts in order of adding. `size_bytes`: its size in memory.

    Texts may be added while a match runs. The match may find them or not.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._phrases: list[str] = []
        self._words: list[str] = []
        self._word_ids: dict[str, int] = {}
        self._postings: list[array[int]] = []
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> None:
        finish(self.add_in_steps(text))

    def add_in_steps(self, text: str) -> Work[None]:
        pieces: list[str] = []
        words: list[str] = []
        for piece in normalize_in_pieces(text):
            pieces.append(piece)
            words += split_words(piece)
            yield
        normalized = "".join(pieces)
        yield
        phrase = f" {' '.join(words)} "
        yield
        distinct = dict.fromkeys(words)
        yield
        index = len(self._texts)
        for number, word in enumerate(distinct):
            self._posting(word).append(index)
            self.size_bytes += _POSTING_BYTES
            if number % 1000 == 999:
                yield
        self._texts.append(normalized)
        self._phrases.append(phrase)
        self.size_bytes += sys.getsizeof(normalized) + sys.getsizeof(phrase) + _TEXT_BYTES

    def _posting(self, word: str) -> array[int]:
        word_id = self._word_ids.get(word)
        if word_id is None:
            word_id = len(self._words)
            self._postings.append(array("I"))
            self._words.append(word)
            self._word_ids[word] = word_id
            self.size_bytes += sys.getsizeof(word) + _WORD_BYTES
        return self._postings[word_id]

    def match(self, query: str, threshold: float) -> list[Match]:
        """Return every text that scores at least `threshold`: best first, the last added first
        among equals."""
        scores = finish(self.match_in_steps(Query(query), threshold))
        kept = [Match(index, score) for index, score in scores.items()]
        kept.sort(key=lambda match: (-match.score, -match.index))
        return kept

    def match_in_steps(self, query: Query, threshold: float) -> Work[dict[int, float]]:
        """Return the scores of the texts that reach the threshold, by index."""
        count = len(self._texts)  # texts added meanwhile are left out
        scores: dict[int, float] = {}
        if query.words:
            scores = yield from self._word_scores(query.words)
            yield from self._lift_phrases(query, scores)
        yield from self._lift_as_written(query.text, count, scores)
        rounded = {index: round(score, 2) for index, score in scores.items() if index < count}
        return {index: score for index, score in rounded.items() if score >= threshold}

    def _word_scores(self, words: Sequence[str]) -> Work[dict[int, float]]:
        """Return the weighted mean of the best matches, by text index."""
        weights = [min(len(word), MAX_WORD_WEIGHT) for word in words]
        total = sum(weights)
        scores: dict[int, float] = {}
        for word, weight in zip(words, weights, strict=True):
            share = ALL_WORDS / 100 * weight / total
            best = yield from self._best_matches(word)
            for index, similarity in best.items():
                scores[index] = scores.get(index, 0.0) + similarity * share
            yield
        return scores

    def _best_matches(self, word: str) -> Work[dict[int, float]]:
        """Return, by text index, the best similarity of any of the text's words to this one."""
        similar = yield from self._similar_words(word)
        best: dict[int, float] = {}
        word_ids: dict[float, list[int]] = {}
        for number, (word_id, similarity) in enumerate(similar.items()):
            word_ids.setdefault(similarity, []).append(word_id)
            if number % 1000 == 999:
                yield
        for similarity in sorted(word_ids):  # the best is written last
            for number, word_id in enumerate(word_ids[similarity]):
                best.update(dict.fromkeys(self._postings[word_id], similarity))
                if number % TEXTS_AT_ONCE == 0:
                    yield
        return best

    def _similar_words(self, word: str) -> Work[dict[int, float]]:
        """Return, by word id, the similarity of the index's words that are close enough."""
        from rapidfuzz import fuzz, process  # noqa: PLC0415 - services.late_imports says why

        similar: dict[int, float] = {}
        if not word.isdecimal():
            is_without_spaces = is_unspaced(word)
            contained = 100.0 if is_without_spaces else CONTAINED
            is_part_enough = is_without_spaces or len(word) >= MIN_CONTAINED_LETTERS
            # Comparing takes time with the square of the length, so much longer words are skipped.
            at_once = COMPARED_AT_ONCE // (1 + len(word) ** 2 // SQUARE_OF_A_SHORT_WORD)
            for start in range(0, len(self._words), at_once):
                words = self._words[start : start + at_once]
                close = process.extract(
                    word, words, scorer=fuzz.ratio, limit=None, score_cutoff=MIN_SIMILARITY
                )
                for candidate, score, place in close:
                    if not candidate.isdecimal():
                        similar[start + place] = score
                yield
                if is_part_enough:
                    chars = 0
                    for word_id, candidate in enumerate(words, start):
                        if word in candidate:
                            similar[word_id] = max(contained, similar.get(word_id, 0.0))
                        chars += len(candidate)
                        if chars > CHARS_AT_ONCE:
                            chars = 0
                            yield
                    yield
        exact = self._word_ids.get(word)
        if exact is not None:
            similar[exact] = 100.0
        return similar

    def _lift_phrases(self, query: Query, scores: dict[int, float]) -> Work[None]:
        rarest = min(query.words, key=lambda word: len(self._exact_posting(word)))
        posting = self._exact_posting(rarest)
        for number in range(len(posting)):
            index = posting[number]
            if index < len(self._phrases) and query.phrase in self._phrases[index]:
                scores[index] = PHRASE
            if number % TEXTS_AT_ONCE == 0:
                yield

    def _exact_posting(self, word: str) -> Sequence[int]:
        word_id = self._word_ids.get(word)
        return () if word_id is None else self._postings[word_id]

    def _lift_as_written(self, normalized: str, count: int, scores: dict[int, float]) -> Work[None]:
        if not normalized:
            return
        chars = 0
        for index in range(count):
            text = self._texts[index]
            if normalized in text:
                scores[index] = VERBATIM if scores.get(index) == PHRASE else AS_WRITTEN
            chars += len(text) + 100
            if chars > CHARS_AT_ONCE:
                chars = 0
                yield
