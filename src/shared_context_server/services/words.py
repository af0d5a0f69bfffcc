"""Words of texts in any script: how they are compared, split, and mentioned.

A word is a run of letters, digits and underscores with their combining marks, so that a vowel sign
of an Indic script or of Thai does not end it (Unicode Standard Annex 29 does the same). Chinese,
Japanese, Thai, Lao, Khmer and Burmese are written without spaces: a run of such letters may hold
several words.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import regex

PIECE_CHARS = 2_000  # normalizing 2,000 characters takes 4 ms where each stands for eighteen

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"


class _Patterns(NamedTuple):
    word: regex.Pattern[str]
    unspaced_word: regex.Pattern[str]
    last_gap: regex.Pattern[str]


@cache
def _patterns() -> _Patterns:
    import regex  # noqa: PLC0415 - services.late_imports says why

    return _Patterns(
        word=regex.compile(r"[\w\p{M}\u200c\u200d]+"),
        unspaced_word=regex.compile(rf"[{_UNSPACED}\p{{M}}]+"),
        last_gap=regex.compile(r"[^\w\p{M}\u200c\u200d]", regex.REVERSE),
    )


def normalize(text: str) -> str:
    """Compatibility-composed (NFKC) and case-folded, as all comparing is done."""
    return "".join(normalize_in_pieces(text))


def normalize_in_pieces(text: str) -> Iterator[str]:
    """`normalize` bit by bit, so that nobody waits for a long text."""
    for start, end in split_into_pieces(text):
        yield unicodedata.normalize("NFKC", text[start:end]).casefold()


def split_into_pieces(text: str) -> Iterator[tuple[int, int]]:
    """Where pieces of at most PIECE_CHARS begin and end: between words if possible, since a letter
    and its marks are normalized together."""
    start = 0
    while start < len(text):
        end = start + PIECE_CHARS
        if end < len(text):
            gap = _patterns().last_gap.search(text, start + 1, end)
            end = end if gap is None else gap.start()
        yield start, min(end, len(text))
        start = end


def split_words(normalized: str) -> list[str]:
    return _patterns().word.findall(normalized)  # type: ignore[no-any-return]  # carries no types


def is_unspaced(word: str) -> bool:
    """Whether the word is of a script that puts no spaces between words."""
    return _patterns().unspaced_word.fullmatch(word) is not None


class Mention:
    """`@name` as a word of its own: not within an e-mail address, nor the beginning of a longer name.
    A letter of a script without spaces may stand on either side, and a full-width @ is one too."""

    def __init__(self, name: str) -> None:
        import regex  # noqa: PLC0415 - services.late_imports says why

        letter = rf"[[\w\p{{M}}]--[{_UNSPACED}]]"
        name = regex.escape(unicodedata.normalize("NFC", name))
        self._pattern = regex.compile(
            rf"(?V1)(?<!{letter})[@\uff20]{name}(?!{letter}|[-.:/@]{letter})"
        )

    def is_in(self, content: str) -> bool:
        """Characters that are composed in one text and not in the other are the same."""
        if "@" not in content and "\uff20" not in content:
            return False
        composed = unicodedata.normalize("NFC", content)
        return self._pattern.search(composed) is not None
