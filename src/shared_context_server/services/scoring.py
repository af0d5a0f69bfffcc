"""How well texts match a query: words compared with RapidFuzz, so that a typo costs little.

The score of a text, 0–100:
- 99 if the query's words stand in it next to each other, in order; 100 if they do so as written
  (case apart);
- 98 if the query stands in it as written, within words; 97 if all its words do, anywhere;
- else the mean over the query's words of each word's best match among the text's words,
  weighted by word length (at most 8): 100 for the word itself, 90 for a longer word that
  contains it (3 letters at least), else RapidFuzz's normalized indel similarity
  (`rapidfuzz.fuzz.ratio`) from 70 up; times 0.97. Numbers match only themselves.

An index keeps every distinct word with the texts it occurs in, so a query is compared with
each distinct word once, not with each text; no text is left out.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz, process

VERBATIM = 100.0
PHRASE = 99.0
AS_WRITTEN = 98.0
ALL_WORDS = 97.0
CONTAINED = 90.0
MIN_SIMILARITY = 70.0
MIN_CONTAINED_LETTERS = 3
MAX_WORD_WEIGHT = 8
MAX_QUERY_WORDS = 64

_WORD = re.compile(r"\w+")


def normalize(text: str) -> str:
    """Compatibility-composed (NFKC) and case-folded, as all comparing is done."""
    return unicodedata.normalize("NFKC", text).casefold()


def split_words(normalized: str) -> list[str]:
    return _WORD.findall(normalized)


@dataclass(frozen=True, slots=True)
class Match:
    """`index`: the text's position in the order of adding."""

    index: int
    score: float


class TextIndex:
    """Texts in order of adding, by the words they contain. Not safe for concurrent change."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._phrases: list[str] = []
        self._words: list[str] = []
        self._word_ids: dict[str, int] = {}
        self._postings: list[array[int]] = []
        self.size_chars = 0

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> None:
        normalized = normalize(text)
        words = split_words(normalized)
        index = len(self._texts)
        self._texts.append(normalized)
        self._phrases.append(f" {' '.join(words)} ")
        self.size_chars += 2 * len(normalized)
        for word in dict.fromkeys(words):
            self._posting(word).append(index)

    def _posting(self, word: str) -> array[int]:
        word_id = self._word_ids.get(word)
        if word_id is None:
            word_id = self._word_ids[word] = len(self._words)
            self._words.append(word)
            self._postings.append(array("I"))
            self.size_chars += len(word)
        return self._postings[word_id]

    def match(self, query: str, threshold: float) -> list[Match]:
        """Every text that scores at least `threshold`, best first, the last added first among equals."""
        normalized = normalize(query).strip()
        words = list(dict.fromkeys(split_words(normalized)))[:MAX_QUERY_WORDS]
        scores = self._word_scores(words) if words else {}
        if words:
            self._lift_phrases(normalized, words, scores)
        self._lift_as_written(normalized, scores)
        found = [Match(index, round(score, 2)) for index, score in scores.items()]
        kept = [match for match in found if match.score >= threshold]
        kept.sort(key=lambda match: (-match.score, -match.index))
        return kept

    def _word_scores(self, words: Sequence[str]) -> dict[int, float]:
        """Text index to the weighted mean of its best matches."""
        weights = [min(len(word), MAX_WORD_WEIGHT) for word in words]
        total = sum(weights)
        scores: dict[int, float] = {}
        for word, weight in zip(words, weights, strict=True):
            share = ALL_WORDS / 100 * weight / total
            for index, similarity in self._best_matches(word).items():
                scores[index] = scores.get(index, 0.0) + similarity * share
        return scores

    def _best_matches(self, word: str) -> dict[int, float]:
        """Text index to the best similarity of any of its words to this one."""
        similar = self._similar_words(word)
        best: dict[int, float] = {}
        for word_id, similarity in sorted(similar.items(), key=lambda item: item[1]):
            best.update(dict.fromkeys(self._postings[word_id], similarity))
        return best

    def _similar_words(self, word: str) -> dict[int, float]:
        """Word id to similarity, for the words of the index that are close enough."""
        similar: dict[int, float] = {}
        if not word.isdecimal():
            close = process.extract(
                word, self._words, scorer=fuzz.ratio, limit=None, score_cutoff=MIN_SIMILARITY
            )
            similar = {i: score for candidate, score, i in close if not candidate.isdecimal()}
            if len(word) >= MIN_CONTAINED_LETTERS:
                for word_id, candidate in enumerate(self._words):
                    if word in candidate:
                        similar[word_id] = max(CONTAINED, similar.get(word_id, 0.0))
        exact = self._word_ids.get(word)
        if exact is not None:
            similar[exact] = 100.0
        return similar

    def _lift_phrases(
        self, normalized: str, words: Sequence[str], scores: dict[int, float]
    ) -> None:
        phrase = f" {' '.join(split_words(normalized))} "
        rarest = min(words, key=lambda word: len(self._exact_posting(word)))
        for index in self._exact_posting(rarest):
            if phrase in self._phrases[index]:
                scores[index] = PHRASE

    def _exact_posting(self, word: str) -> Sequence[int]:
        word_id = self._word_ids.get(word)
        return () if word_id is None else self._postings[word_id]

    def _lift_as_written(self, normalized: str, scores: dict[int, float]) -> None:
        if not normalized:
            return
        for index, text in enumerate(self._texts):
            if normalized in text:
                scores[index] = VERBATIM if scores.get(index) == PHRASE else AS_WRITTEN
