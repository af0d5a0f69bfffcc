"""Score how well texts match a query: compares words with RapidFuzz, so that a typo costs little.

The score of a text, 0–100, is 96 times the share of the query that it has, and up to 3 more if the
words stand next to each other in the query's order; 100 if it has the query as written, case apart.

The share is the weighted mean of each query word's best match in the text:

- 1 for the word itself; 0.98 if only its accents differ;
- 0.97 if it is written as one with its neighbours in the query, or apart from them, as `user id` and
  `userid`;
- 0.92 for a longer word that begins with it, 0.85 for one that contains it (3 letters at least);
- with typos, 1 less the share of its letters that differ, at most 0.9. One typo is allowed from 4
  letters on, two from 7. Swapped letters are one typo. Numbers and codes match only themselves;
- in scripts without spaces 1 where it stands within a run of letters, else 0.9 times the share of
  its pairs of letters, or of its letters, that stand there.

A word weighs more if it is long, and if the caller says that it is rare.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from shared_context_server.services.query_terms import (
    can_be_prefix,
    has_digit,
    list_query_tokens,
    max_edits,
    word_weight,
)
from shared_context_server.services.slices import Work, finish
from shared_context_server.services.terms import (
    Chunk,
    Kind,
    Token,
    analyse,
    letter_pairs,
    list_chunks,
    split_plain,
)
from shared_context_server.services.words import normalize, split_words

WORDS = 96.0
ORDER = 3.0
VERBATIM = 100.0
AS_WRITTEN = 98.0  # at least, if the query has signs and the text has it as written

OTHER_ACCENTS = 0.98
OTHERWISE_JOINED = 0.97
BEGINS = 0.92
CONTAINS = 0.85
MAX_TYPO = 0.9
MIN_CONTAINED_LETTERS = 3
MIN_SHARE_OF_PAIRS = 0.3
COMPARED_LETTERS = 64  # of a run; a longer one is compared by its pairs only

MANY_TEXTS = 10_000  # from here on, how many texts have a word counts in full
MAX_QUERY_WORDS = 32
MAX_UNITS = 64  # words and parts of words that are compared
MAX_REPETITIONS = 2
COMPARED_AT_ONCE = 10_000  # words: RapidFuzz holds the interpreter for about a millisecond
TEXTS_AT_ONCE = 1000
CHARS_AT_ONCE = 50_000

_PART = 1 << 20  # what a word takes in the positions of a chunk; letters of a run take 1
_CHUNK = 1 << 44


class Unit(NamedTuple):
    """A word of the query. `last`: for words written as one, the number of the last that it covers."""

    term: str
    written: str
    kind: Kind
    first: int
    last: int


class Hit(NamedTuple):
    """A match in a chunk: the units `first` to `last` of the query. `start`, `end`: its position,
    for telling whether matches are neighbours. `token`: what matches."""

    first: int
    last: int
    similarity: float
    start: int
    end: int
    token: Token


class Query:
    """A query, prepared for comparison with texts. `text`: all of it, normalized. `words`: its
    distinct words. `units`: its words and parts of words in order, which are compared."""

    def __init__(self, text: str) -> None:
        self.text = normalize(text).strip()
        tokens = list_query_tokens(text)
        words = _drop_repeated([token for token in tokens if token.kind is not Kind.WHOLE])
        self.words = list(dict.fromkeys(split_words(self.text)))
        self.units = [
            Unit(token.term, token.written, token.kind, number, number)
            for number, token in enumerate(words)
        ]
        numbers: dict[int, list[int]] = {}
        for number, token in enumerate(words):
            numbers.setdefault(token.first, []).append(number)
        # The unit before each, where it is its neighbour. C++ is a second unit of its word.
        self.before = {
            numbers[part][0]: numbers[part - 1][0] for part in numbers if part - 1 in numbers
        }
        self.wholes = [
            Unit(token.term, token.written, Kind.WHOLE, numbers[token.first][0], last[0])
            for token in tokens
            if token.kind is Kind.WHOLE
            and token.first in numbers
            and (last := numbers.get(token.last - 1))
        ]
        self.has_signs = len("".join(split_words(self.text))) < len("".join(self.text.split()))
        self.weigh({})

    def weigh(self, rarities: Mapping[str, float]) -> None:
        """Set the weights of the words, by how rare each is: from 0 to 1, see `rarity`. Words that
        are not in the mapping count as rare."""
        weights = [
            word_weight(unit.term) * (0.25 + 0.75 * rarities.get(unit.term, 1.0))
            for unit in self.units
        ]
        total = sum(weights) or 1.0
        self.weights = [weight / total for weight in weights]

    def counted_terms(self) -> list[str]:
        """Return the terms whose numbers of texts weigh_by_counts asks for."""
        return list(dict.fromkeys(term for unit in self.units for term in indexed_terms(unit)))

    def weigh_by_counts(self, count_texts: Callable[[str], int], texts: int) -> None:
        """Set the weights by the number of texts in which an index has each term. A run of letters
        is at most as frequent as its rarest pair."""
        self.weigh(
            {
                unit.term: rarity(min(map(count_texts, indexed_terms(unit))), texts)
                for unit in self.units
            }
        )


def indexed_terms(unit: Unit) -> list[str]:
    """Return the terms by which an index has a unit: its letters in pairs for a run."""
    if unit.kind is not Kind.RUN:
        return [unit.term]
    pairs = list(letter_pairs(unit.term))
    return pairs[:-1] if len(pairs) > 1 else pairs


def _drop_repeated(words: list[Token]) -> list[Token]:
    """Leave out further repetitions of a word: each would match at every place of the others. Of a
    query with very many parts, keep the first."""
    seen: dict[str, int] = {}
    kept = []
    for word in words:
        seen[word.term] = seen.get(word.term, 0) + 1
        if seen[word.term] <= MAX_REPETITIONS:
            kept.append(word)
    return kept[:MAX_UNITS]


def rarity(texts_with_it: int, texts: int) -> float:
    """Return how rare a word is, from 0 (in all of many texts) to 1 (in none): its inverse document
    frequency, as a share of the largest possible. Few texts say little of how rare a word is, so
    among few a common word counts as rarer."""
    if texts <= 0:
        return 1.0
    share = math.log((texts + 1) / (min(texts_with_it, texts) + 1)) / math.log(texts + 1)
    confidence = min(1.0, math.log(texts + 1) / math.log(MANY_TEXTS))
    return 1.0 - confidence * (1.0 - min(1.0, max(0.0, share)))


def score_text(query: Query, text: str) -> float:
    """Return the score of one text."""
    return finish(score_in_steps(query, [text]))[0]


def score_texts(query: Query, texts: Sequence[str]) -> list[float]:
    """Return the scores of the texts, in their order. Many at once cost less than one by one."""
    return finish(score_in_steps(query, texts))


def score_in_steps(
    query: Query, texts: Sequence[str], found: dict[str, tuple[Hit, ...]] | None = None
) -> Work[list[float]]:
    """Return the scores. `found`: takes the matches in each chunk, for making previews."""
    scores: list[float] = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        chars = 0
        split: list[list[str]] = []
        for text in texts[start : start + TEXTS_AT_ONCE]:
            split.append(list_chunks(text))
            chars += len(text)
            if chars > CHARS_AT_ONCE:
                chars = 0
                yield
        hits = yield from find_hits_in_steps(query, split)
        if found is not None:
            found.update(hits)
        for text, chunks in zip(texts[start : start + TEXTS_AT_ONCE], split, strict=True):
            scores.append(_score(query, text, chunks, hits))
            chars += len(text)
            if chars > CHARS_AT_ONCE:
                chars = 0
                yield
        yield
    return scores


def _score(query: Query, text: str, chunks: list[str], hits: Mapping[str, Sequence[Hit]]) -> float:
    found = [(place, hits[chunk]) for place, chunk in enumerate(chunks) if chunk in hits]
    if not found:
        return _score_signs(query, text, 0.0)
    best = [0.0] * len(query.units)
    near: set[int] = set()  # units that stand right behind the one before them
    ends: dict[int, set[int]] = {}
    for place, chunk_hits in found:
        base = place * _CHUNK
        for first, last, similarity, start, end, _ in chunk_hits:
            if first == last:
                if similarity > best[first]:
                    best[first] = similarity
            else:
                for unit in range(first, last + 1):
                    best[unit] = max(best[unit], similarity)
                near.update(range(first + 1, last + 1))
            neighbours = ends.get(base + start)
            if neighbours is not None and query.before.get(first) in neighbours:
                near.add(first)
            ends.setdefault(base + end, set()).add(last)
    share: float = sum(map(operator.mul, best, query.weights))
    pairs = len(query.before)
    order = len(near & query.before.keys()) / pairs if pairs else 1.0
    score = share * (WORDS + ORDER * order)
    if order == 1.0 and share > 0.9999 and query.text in normalize(text):
        return VERBATIM
    return _score_signs(query, text, round(score, 2))


def _score_signs(query: Query, text: str, score: float) -> float:
    """Return the score of a text that has the query's signs as written."""
    if query.text and (query.has_signs or not query.units) and query.text in normalize(text):
        return max(score, AS_WRITTEN) if query.units else VERBATIM
    return score


def find_hits_in_steps(
    query: Query, texts: Iterable[Iterable[str]]
) -> Work[dict[str, tuple[Hit, ...]]]:
    """Return the matches in each distinct chunk of the texts, if it has any."""
    chunks: set[str] = set()
    for text in texts:
        chunks.update(text)
    yield
    words, others = split_plain(chunks)
    yield
    terms = dict.fromkeys(words.values())
    runs: dict[str, None] = {}
    analysed: list[tuple[str, Chunk]] = []
    for number, chunk in enumerate(others):
        found = analyse(chunk)
        analysed.append((chunk, found))
        for token in found.tokens:
            if token.kind is Kind.RUN:
                runs[token.term] = None
            else:
                terms[token.term] = None
        if number % 100 == 99:
            yield
    similar = yield from find_similar_in_steps(query, list(terms))
    similar_runs = yield from _find_in_runs(query, list(runs))
    hits = {
        chunk: _hits_in(analyse(chunk), similar, similar_runs)
        for chunk, term in words.items()
        if term in similar
    }
    if not similar and not similar_runs:
        return hits
    for number, (chunk, found) in enumerate(analysed):
        if matches := _hits_in(found, similar, similar_runs):
            hits[chunk] = matches
        if number % 100 == 99:
            yield
    return hits


def _hits_in(
    chunk: Chunk,
    similar: Mapping[str, list[tuple[Unit, float]]],
    similar_runs: Mapping[str, list[tuple[int, float, int, int]]],
) -> tuple[Hit, ...]:
    tokens, parts = chunk
    found: list[Hit] = []
    for token in tokens:
        if token.kind is Kind.RUN:
            base = token.first * _PART
            for unit, similarity, start, end in similar_runs.get(token.term, ()):
                is_at_end = end >= len(token.term)
                end_position = _end_of(token, parts) if is_at_end else base + end
                found.append(Hit(unit, unit, similarity, base + start, end_position, token))
        elif (matches := similar.get(token.term)) is not None:
            start, end = token.first * _PART, _end_of(token, parts)
            for one, similarity in matches:
                if similarity == 1.0 and one.written != token.written:
                    similarity = OTHER_ACCENTS
                if (one.kind is Kind.WHOLE) != (token.kind is Kind.WHOLE):
                    similarity = min(similarity, OTHERWISE_JOINED)
                found.append(Hit(one.first, one.last, similarity, start, end, token))
    return tuple(found)


def _end_of(token: Token, parts: int) -> int:
    """Return the position behind the token: if it is the chunk's last, the next chunk's start."""
    return _CHUNK if token.last == parts else token.last * _PART


def find_similar_in_steps(
    query: Query, terms: Sequence[str]
) -> Work[dict[str, list[tuple[Unit, float]]]]:
    """Return those of the terms that are close enough to a word of the query, each with the words
    that it is close to and how close, up to 1."""
    slices = [
        (some, "\n".join(some))
        for start in range(0, len(terms), COMPARED_AT_ONCE)
        if (some := terms[start : start + COMPARED_AT_ONCE])
    ]
    yield
    similar: dict[str, list[tuple[Unit, float]]] = {}
    known: dict[str, dict[str, float]] = {}
    for unit in (*query.units, *query.wholes):
        if unit.kind is Kind.RUN:
            continue
        if unit.term not in known:
            known[unit.term] = yield from _similarities(unit, slices)
        for term, similarity in known[unit.term].items():
            similar.setdefault(term, []).append((unit, similarity))
    return similar


def _similarities(
    unit: Unit, slices: Sequence[tuple[Sequence[str], str]]
) -> Work[dict[str, float]]:
    """Return the similarity of the terms to a word of the query. `slices`: the terms, and the same
    joined by line breaks."""
    from rapidfuzz import process  # noqa: PLC0415 - services.late_imports says why
    from rapidfuzz.distance import OSA  # noqa: PLC0415

    sought = unit.term
    found: dict[str, float] = {}
    # Words that the query has as neighbours match only what is written as one without a typo.
    edits = max_edits(sought) if unit.first == unit.last else 0
    is_prefix = can_be_prefix(sought)
    is_contained = len(sought) >= MIN_CONTAINED_LETTERS and not has_digit(sought)
    for some, joined in slices:
        if edits:
            for term, distance, _ in process.extract(
                sought, some, scorer=OSA.distance, score_cutoff=edits, limit=None
            ):
                if distance and not has_digit(term):
                    found[term] = min(MAX_TYPO, 1 - distance / max(len(sought), len(term)))
            yield
        for term in _containing(sought, joined):
            if term == sought:
                found[term] = 1.0
            elif is_prefix and term.startswith(sought):
                found[term] = BEGINS
            elif is_contained:
                found[term] = max(CONTAINS, found.get(term, 0.0))
        yield
    return found


def _containing(sought: str, joined: str) -> Iterator[str]:
    """Return the terms that contain this one. Looking for it in all of them joined takes a tenth of
    the time of looking in each."""
    place = joined.find(sought)
    while place >= 0:
        end = joined.find("\n", place)
        end = len(joined) if end < 0 else end
        yield joined[joined.rfind("\n", 0, place) + 1 : end]
        place = joined.find(sought, end)


def _find_in_runs(
    query: Query, runs: Sequence[str]
) -> Work[dict[str, list[tuple[int, float, int, int]]]]:
    """Return where the query's runs stand in these: unit, similarity, start and end."""
    from rapidfuzz import fuzz  # noqa: PLC0415 - services.late_imports says why

    found: dict[str, list[tuple[int, float, int, int]]] = {}
    units = [unit for unit in query.units if unit.kind is Kind.RUN]
    joined = "\n".join(runs) if units else ""
    for unit in units:
        pairs = list(dict.fromkeys(indexed_terms(unit)))
        counts = Counter[str]()
        for pair in pairs:
            counts.update(dict.fromkeys(_containing(pair, joined), 1))
            yield
        least = MIN_SHARE_OF_PAIRS * len(pairs)
        for number, (run, count) in enumerate(counts.items()):
            if count < least:
                continue
            place = run.find(unit.term)
            if place >= 0:
                similarity, end = 1.0, place + len(unit.term)
            else:
                places = [at for pair in pairs if (at := run.find(pair)) >= 0]
                share = count / len(pairs)
                if len(unit.term) <= COMPARED_LETTERS:
                    share = max(share, fuzz.partial_ratio(unit.term, run) / 100)
                similarity = MAX_TYPO * share
                place, end = min(places), max(places) + 1
            found.setdefault(run, []).append((unit.first, similarity, place, end))
            if number % 100 == 99:
                yield
    return found
