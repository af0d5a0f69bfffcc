"""Analyse texts for search: split them into words, and make the terms that an index stores.

Words follow Unicode Standard Annex 29, in any script, with their marks. Beyond it:

- Identifiers are found whole and by their parts. `user_id`, `userId` and `user-id` give `user`, `id`
  and `userid`; so do parts of paths, URLs and error codes.
- Chinese, Japanese, Thai, Lao, Khmer and Burmese are written without spaces between words. A run of
  such letters gives each pair of neighbouring letters.
- Terms are folded: compatibility forms (NFKC), case, and accents of the scripts in which people leave
  accents out. Vowel signs of Indic scripts and of Thai stay.

Positions are taken in the text as it was written, before it is folded, so that they are right where
folding changes the number of characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence, Set
from enum import Enum
from functools import cache, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from shared_context_server.services.words import (
    MARKS,
    PIECE_CHARS,
    UNSPACED,
    fold_accents,
    normalize_word,
    split_into_pieces,
)

if TYPE_CHECKING:
    import regex

MAX_TERM_CHARS = 40  # a longer term is cut, in texts and queries alike
MAX_TERMS = 20_000  # of one text
MAX_PARTS = 6  # of a name without separators; what has more, such as base64, stays whole
KEPT_CHUNK_CHARS = 40  # a longer piece of text hardly occurs twice
KEPT_TERMS = 16_384  # pieces of texts whose terms are kept: some 5 MB
_AROUND_WORDS = ".,;:!?()[]{}<>\"'`*"
_AROUND = f"[{re.escape(_AROUND_WORDS)}]*"
_LOWER = rf"[a-z]{{1,{MAX_TERM_CHARS}}}"
_WORD = rf"[A-Za-z][a-z]{{0,{MAX_TERM_CHARS - 1}}}"
_PLAIN_LINE = re.compile(rf"^{_LOWER}$", re.MULTILINE)
_SURROUNDED_LINE = re.compile(rf"^(?!{_LOWER}$)({_AROUND}({_WORD}){_AROUND})$", re.MULTILINE)
# Letters of Chinese and Japanese that are their own folded form, and signs that are part of no word.
_PLAIN_RUN = re.compile(r"[\u3041-\u3094\u30a1-\u30fa\u30fc\u4e00-\u9fff]+")
_PLAIN_RUNS = re.compile(
    r"[\u3041-\u3094\u30a1-\u30fa\u30fc\u4e00-\u9fff\u3001\u3002\u300a-\u300f\uff01\uff0c\uff1a\uff1b\uff1f]+"
)
# A word with a number behind it, or a number alone: the most frequent names in code and logs.
_NUMBERED = re.compile(rf"{_AROUND}([A-Za-z][a-z]{{0,20}})?([0-9]{{1,19}}){_AROUND}")
_OTHER_LINE = re.compile(rf"^(?!{_AROUND}{_WORD}{_AROUND}$).+$", re.MULTILINE)


class Kind(Enum):
    """What a token is. WHOLE: several words written as one, such as an identifier, besides its
    parts. RUN: letters of a script without spaces between words."""

    WORD = "word"
    NUMBER = "number"
    WHOLE = "whole"
    RUN = "run"
    SYMBOL = "symbol"


_KINDS = {None: Kind.WORD, "number": Kind.NUMBER, "run": Kind.RUN, "symbol": Kind.SYMBOL}


class Token(NamedTuple):
    """A word of a text. `term`: folded. `written`: the same with its accents. `start` and `end`:
    its place in the text, in characters. `first` and `last`: the parts that it covers, counted
    within its piece of the text; a word covers one, an identifier several."""

    term: str
    written: str
    start: int
    end: int
    first: int
    last: int
    kind: Kind


class Chunk(NamedTuple):
    """What stands between two white spaces. `parts`: the number of its words."""

    tokens: tuple[Token, ...]
    parts: int


class _Part(NamedTuple):
    start: int
    end: int
    kind: Kind


class _Patterns(NamedTuple):
    part: regex.Pattern[str]
    cluster: regex.Pattern[str]
    is_hash: regex.Pattern[str]
    name_gap: regex.Pattern[str]
    path_gap: regex.Pattern[str]
    suffix: regex.Pattern[str]


@cache
def _patterns() -> _Patterns:
    import regex  # noqa: PLC0415 - services.late_imports says why

    upper = rf"[\p{{Lu}}\p{{Lt}}]{MARKS}*"
    part = (
        rf"(?P<run>[{UNSPACED}][{UNSPACED}\p{{M}}\u00ad\u200c\u200d\u2060]*)"
        r"|(?P<number>\p{N}+)"
        rf"|(?:{upper})+(?!\p{{Ll}})"
        rf"|(?:{upper})?[[\p{{L}}--\p{{Lu}}--\p{{Lt}}--[{UNSPACED}]]]"
        rf"(?:[[\p{{L}}--\p{{Lu}}--\p{{Lt}}--[{UNSPACED}]]]|{MARKS})*"
        rf"|{upper}"
        r"|(?P<symbol>\p{Extended_Pictographic}(?:[\ufe0f\p{EMod}]|\u200d\p{Extended_Pictographic})*)"
    )
    return _Patterns(
        part=regex.compile(part, regex.VERSION1),
        cluster=regex.compile(r"\X"),
        is_hash=regex.compile(r"[0-9a-f]{4,}", regex.IGNORECASE),
        name_gap=regex.compile(r"[-_'\u2018\u2019\u2010\u2011]?"),
        path_gap=regex.compile(r"[-_'\u2018\u2019\u2010\u2011./\\:@#?=&%+~$\u00b7]{0,3}"),
        suffix=regex.compile(r"(?:\+\+|#)(?!\w)"),
    )


class IndexTerms(NamedTuple):
    """What an index stores of a text. `terms`: what it is found by, names also whole. `order`: its
    words as they follow each other, without the wholes, so that neighbours stand side by side."""

    terms: Sequence[str]
    order: Sequence[str]


def index_terms(text: str) -> list[str]:
    """Return the terms of a text to find it by, as `analyse_text` does."""
    return list(analyse_text(text).terms)


def analyse_text(text: str) -> IndexTerms:
    """Return what to store of a text, at most MAX_TERMS of each of at most MAX_TERM_CHARS."""
    terms, order = list[str](), list[str]()
    for start, end in split_into_pieces(text):
        for chunk in text[start:end].split():
            found = _chunk_terms(chunk) if len(chunk) <= KEPT_CHUNK_CHARS else _find_terms(chunk)
            terms += found.terms
            order += found.order
        if len(terms) >= MAX_TERMS:
            break
    return IndexTerms(terms[:MAX_TERMS], order[:MAX_TERMS])


def _find_terms(chunk: str) -> IndexTerms:
    word = chunk.strip(_AROUND_WORDS)
    if is_plain(word):
        plain = (word.lower(),)
        return IndexTerms(plain, plain)
    terms, order = list[str](), list[str]()
    last_part = -1
    for token in analyse(chunk).tokens:
        is_run = token.kind is Kind.RUN
        found = tuple(letter_pairs(token.term)) if is_run else (token.term,)
        terms += found
        # C++ is a second token of its word.
        if token.kind is not Kind.WHOLE and token.first > last_part:
            order += found
            last_part = token.first
    return IndexTerms(tuple(terms), tuple(terms) if terms == order else tuple(order))


_chunk_terms = lru_cache(maxsize=KEPT_TERMS)(_find_terms)


def split_chunks(text: str) -> Iterator[tuple[str, int]]:
    """Return what stands between white spaces, each with its place in the text."""
    for start, end in split_into_pieces(text):
        for chunk, place in place_chunks(text[start:end]):
            yield chunk, start + place


def place_chunks(piece: str, wanted: Set[str] | None = None) -> Iterator[tuple[str, int]]:
    """Return the chunks of a piece of a text, or those that are wanted, each with its place."""
    chunks = piece.split()
    if wanted is not None and wanted.isdisjoint(chunks):
        return
    place = 0
    for chunk in chunks:
        place = piece.index(chunk, place)
        if wanted is None or chunk in wanted:
            yield chunk, place
        place += len(chunk)


def list_chunks(text: str) -> list[str]:
    """Return what stands between white spaces. Each is at most PIECE_CHARS long."""
    if len(text) <= PIECE_CHARS:
        return text.split()
    return [chunk for start, end in split_into_pieces(text) for chunk in text[start:end].split()]


def is_plain(word: str) -> bool:
    """Whether this is one English-looking word, perhaps with a capital. Most are, and its term is
    the word in lower case."""
    return (
        word.isascii()
        and word.isalpha()
        and (word.islower() or word[1:].islower() or len(word) == 1)
        and len(word) <= MAX_TERM_CHARS
    )


def split_plain(chunks: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Return the chunks that are plain words, see `is_plain`, with their terms; and the others.
    It costs a fraction of `analyse`, and most chunks are plain."""
    joined = "\n".join(chunks)  # a chunk has no line break
    plain = _PLAIN_LINE.findall(joined)
    words = dict(zip(plain, plain, strict=True))
    words.update((chunk, word.lower()) for chunk, word in _SURROUNDED_LINE.findall(joined))
    return words, _OTHER_LINE.findall(joined)


def analyse(chunk: str) -> Chunk:
    """Return the tokens of a chunk, in order of their starts."""
    word = chunk.strip(_AROUND_WORDS)
    if is_plain(word):
        term = word.lower()
        start = chunk.index(word)
        return Chunk((Token(term, term, start, start + len(word), 0, 1, Kind.WORD),), 1)
    if _PLAIN_RUNS.fullmatch(chunk):
        return _analyse_runs(chunk)
    if (found := _NUMBERED.fullmatch(chunk)) is not None:
        return _analyse_numbered(found)
    if len(chunk) <= KEPT_CHUNK_CHARS:
        return _analyse_kept(chunk)
    return _analyse(chunk)


def _analyse_numbered(found: re.Match[str]) -> Chunk:
    """Return what `_analyse` does of a word with a number behind it, at a tenth of the cost."""
    word, digits = found.groups()
    middle, end = found.span(2)
    if word is None:
        return Chunk((Token(digits, digits, middle, end, 0, 1, Kind.NUMBER),), 1)
    start, word = found.start(1), word.lower()
    whole = word + digits
    return Chunk(
        (
            Token(word, word, start, middle, 0, 1, Kind.WORD),
            Token(whole, whole, start, end, 0, 2, Kind.WHOLE),
            Token(digits, digits, middle, end, 1, 2, Kind.NUMBER),
        ),
        2,
    )


def _analyse_runs(chunk: str) -> Chunk:
    """Return what `_analyse` does of a chunk of plain Chinese or Japanese, at a tenth of the cost."""
    tokens = tuple(
        Token(run, run, found.start(), found.end(), number, number + 1, Kind.RUN)
        for number, found in enumerate(_PLAIN_RUN.finditer(chunk))
        if (run := found.group())
    )
    return Chunk(tokens, len(tokens))


@lru_cache(maxsize=4096)  # some 2 MB
def _analyse_kept(chunk: str) -> Chunk:
    return _analyse(chunk)


def _analyse(chunk: str) -> Chunk:
    patterns = _patterns()
    tokens: list[Token] = []
    number = 0
    for path in _group(_parts(chunk), chunk, patterns.path_gap):
        words: list[Token] = []
        wholes: list[Token] = []
        for name in _group(path, chunk, patterns.name_gap):
            named = [
                token
                for place, part in enumerate(name, number)
                if (token := _token(chunk, part, place)) is not None
            ]
            number += len(name)
            if len(named) > 1:
                wholes.append(join_tokens(named))
            words += named
        if len(words) > 1 and (not wholes or wholes[0].last - wholes[0].first < len(words)):
            wholes.append(join_tokens(words))
        tokens += wholes
        tokens += words
        suffix = patterns.suffix.match(chunk, path[-1].end)
        if suffix is not None and words:
            sign = words[-1].term + suffix.group()
            tokens.append(
                words[-1]._replace(term=sign, written=sign, end=suffix.end(), kind=Kind.SYMBOL)
            )
    tokens.sort(key=lambda token: (token.start, token.end))
    return Chunk(tuple(tokens), number)


def _parts(chunk: str) -> list[_Part]:
    """Return the parts of a chunk: words, also those within `camelCase`, numbers, runs, symbols."""
    parts = [
        _Part(found.start(), found.end(), _KINDS[found.lastgroup])
        for found in _patterns().part.finditer(chunk)
    ]
    if len(parts) < 3:
        return parts
    kept: list[_Part] = []
    for name in _group(parts, chunk, None):
        start, end = name[0].start, name[-1].end
        is_hash = len(name) > 2 and _patterns().is_hash.fullmatch(chunk, start, end)
        if is_hash or len(name) > MAX_PARTS:
            kept.append(_Part(start, end, Kind.WORD))
        else:
            kept += name
    return kept


def _group(parts: list[_Part], chunk: str, gap: regex.Pattern[str] | None) -> Iterator[list[_Part]]:
    """Group neighbouring words and numbers with nothing but this gap between them (None: nothing)."""
    group: list[_Part] = []
    for part in parts:
        if group:
            last = group[-1]
            if last.end == part.start:
                is_near = True
            else:
                is_near = gap is not None and bool(gap.fullmatch(chunk, last.end, part.start))
            if not (is_near and _is_word(last) and _is_word(part)):
                yield group
                group = []
        group.append(part)
    if group:
        yield group


def _is_word(part: _Part) -> bool:
    return part.kind is Kind.WORD or part.kind is Kind.NUMBER


def _token(chunk: str, part: _Part, place: int) -> Token | None:
    written = normalize_word(chunk[part.start : part.end])
    if part.kind is not Kind.RUN:
        written = written[:MAX_TERM_CHARS]
    term = fold_accents(written)
    if not term:
        return None
    return Token(term, written, part.start, part.end, place, place + 1, part.kind)


def join_tokens(tokens: Sequence[Token]) -> Token:
    """Return the neighbours as one, which covers their parts."""
    first, last = tokens[0], tokens[-1]
    return Token(
        "".join(token.term for token in tokens)[:MAX_TERM_CHARS],
        "".join(token.written for token in tokens)[:MAX_TERM_CHARS],
        first.start,
        last.end,
        first.first,
        last.last,
        Kind.WHOLE,
    )


def letter_pairs(run: str) -> Iterator[str]:
    """Return each letter of a run with the next one, and the last letter alone, so that a search
    for one letter finds all terms that begin with it. A letter comes with its marks."""
    letters = list_letters(run)
    for one, next_one in pairwise(letters):
        yield one + next_one
    if letters:
        yield letters[-1]


def list_letters(text: str) -> list[str]:
    """Return the letters of a text, each with its marks."""
    if text.isalpha():
        return list(text)  # no marks
    return _patterns().cluster.findall(text)  # type: ignore[no-any-return]  # carries no types


def split_letters(text: str) -> Iterator[tuple[int, int]]:
    """Return the places of the letters of a text, each with its marks."""
    for found in _patterns().cluster.finditer(text):
        yield found.span()
