"""Normalize texts in any script, split them into words, and find mentions.

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

PIECE_CHARS = 2_000  # normalizing 2,000 characters takes 4 ms if each becomes eighteen

# The insides of a set of letters: the scripts without spaces between words.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}ー\uff70\uff9e\uff9f\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
# What belongs to the letter before it: its marks, and characters that only direct how it is drawn.
MARKS = r"[\p{M}\u00ad\u200c\u200d\u2060]"

# Letters with a stroke or a form of their own, which have no decomposition in Unicode.
_PLAIN_LETTERS = str.maketrans(
    {
        "ø": "o",
        "ł": "l",
        "đ": "d",
        "ħ": "h",
        "ŧ": "t",
        "\u0131": "i",
        "æ": "ae",
        "œ": "oe",
        "ð": "d",
        # The skin tones of emojis.
        **dict.fromkeys("\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"),
    }
)


class _Patterns(NamedTuple):
    word: regex.Pattern[str]
    last_gap: regex.Pattern[str]
    accent: regex.Pattern[str]
    not_in_words: regex.Pattern[str]


@cache
def _patterns() -> _Patterns:
    import regex  # noqa: PLC0415 - services.late_imports says why

    return _Patterns(
        word=regex.compile(r"[\w\p{M}\u200c\u200d]+"),
        last_gap=regex.compile(r"[^\w\p{M}\u200c\u200d]", regex.REVERSE),
        # Marks shared by many scripts, Hebrew points, and Arabic vowels: what writers leave out.
        accent=regex.compile(
            r"[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0640]"
        ),
        not_in_words=regex.compile(r"[\s\p{P}\u00ad\u200c\u200d\u2060\ufe0e\ufe0f\u2044]+"),
    )


def normalize(text: str) -> str:
    """Return the text compatibility-composed (NFKC) and case-folded. All comparisons use this form."""
    if text.isascii():
        return text.lower()
    return "".join(normalize_in_pieces(text))


def normalize_word(word: str) -> str:
    """Return one word normalized, without characters that only direct how it is drawn."""
    if word.isascii():
        return word.lower()
    normalized = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold())
    return _patterns().not_in_words.sub("", normalized)  # type: ignore[no-any-return]  # carries no types


def fold_accents(normalized: str) -> str:
    """Return a normalized word without its accents and skin tones. Vowel signs, and marks that make
    another letter, as in Japanese, stay."""
    if normalized.isascii():
        return normalized
    decomposed = unicodedata.normalize("NFKD", normalized)
    plain = _patterns().accent.sub("", decomposed).translate(_PLAIN_LETTERS)
    return unicodedata.normalize("NFC", plain)


def normalize_in_pieces(text: str) -> Iterator[str]:
    """Normalize piece by piece, so that a long text does not block."""
    for start, end in split_into_pieces(text):
        yield unicodedata.normalize("NFKC", text[start:end]).casefold()


def split_into_pieces(text: str) -> Iterator[tuple[int, int]]:
    """Return the ends of pieces of at most PIECE_CHARS. They are cut between words if possible,
    because a letter and its marks are normalized together."""
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


class Mention:
    """Finds `@name` as a word of its own: not within an e-mail address, nor as the start of a
    longer name. A letter of a script without spaces may stand on either side. A full-width @ counts
    too."""

    def __init__(self, name: str) -> None:
        import regex  # noqa: PLC0415 - services.late_imports says why

        letter = rf"[[\w\p{{M}}]--[{UNSPACED}]]"
        name = regex.escape(unicodedata.normalize("NFC", name))
        self._pattern = regex.compile(
            rf"(?V1)(?<!{letter})[@\uff20]{name}(?!{letter}|[-.:/@]{letter})"
        )

    def is_in(self, content: str) -> bool:
        """Whether the content mentions the name. Composed and decomposed characters are equal."""
        if "@" not in content and "\uff20" not in content:
            return False
        composed = unicodedata.normalize("NFC", content)
        return self._pattern.search(composed) is not None
