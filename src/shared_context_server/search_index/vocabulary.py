"""Keep the distinct words of the index in memory, to find those that contain others.

The engine's dictionary is sorted, so it finds what begins with a word quickly, but has to be read
whole for what contains one. Here that takes a millisecond for a hundred thousand words, which are a
megabyte. The words of all texts are in it, so they only serve to ask the index further, with the
caller's audience in the query.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from shared_context_server.search_index.documents import CONTENT

if TYPE_CHECKING:
    import tantivy

MAX_CHARS = 8_000_000  # of all words; the most frequent ones are kept
MIN_CHARS = 4  # of a word that contains another
MIN_CONTAINING, MAX_CONTAINING = 100, 400  # words for one text, by the number of documents
DOCUMENTS_A_CONTAINING = 250
STALE_SHARE = 0.05  # of the documents: when so many are new or gone, it is read anew
SMALL_DOCUMENTS = 2_000  # the words of so many are read at once, those of more in parts
_FIRST_LETTER, _END = 0x61, 0x0E00  # the letters with which words begin, see documents.is_word


class Vocabulary:
    """The words of one state of the index. `documents`: the number of its documents."""

    def __init__(self, searcher: tantivy.Searcher) -> None:
        self.documents = searcher.num_docs
        by_frequency: defaultdict[int, list[str]] = defaultdict(list)
        for prefix in _prefixes(is_large=self.documents > SMALL_DOCUMENTS):
            found: defaultdict[int, list[str]] = defaultdict(list)
            for word, count in searcher.terms_with_prefix(CONTENT.words, prefix):
                if len(word) >= MIN_CHARS:
                    found[count.bit_length()].append(word)
            for frequency, words in found.items():
                by_frequency[frequency].append("\n".join(words))
        left = MAX_CHARS
        self._joined: list[str] = []
        for frequency in sorted(by_frequency, reverse=True):
            joined = "\n".join(by_frequency.pop(frequency))
            self._joined.append(joined[: max(0, left)])
            left -= len(joined)

    def is_stale(self, documents: int) -> bool:
        """Whether an index of so many documents has changed much since."""
        return abs(documents - self.documents) > max(1, STALE_SHARE * self.documents)

    def list_containing(self, text: str) -> list[str]:
        """Return words that contain the text behind their beginning, the more frequent ones first.
        Each costs time in a search, so among few documents there are fewer."""
        limit = max(MIN_CONTAINING, min(MAX_CONTAINING, self.documents // DOCUMENTS_A_CONTAINING))
        return list(islice(self._find(text), limit))

    def _find(self, text: str) -> Iterator[str]:
        for joined in self._joined:
            place = joined.find(text, 1)
            while place >= 0:
                start = joined.rfind("\n", 0, place) + 1
                if start == place:  # it begins with the text
                    place = joined.find(text, place + 1)
                    continue
                end = joined.find("\n", place)
                end = len(joined) if end < 0 else end
                yield joined[start:end]
                place = joined.find(text, end)


def _prefixes(*, is_large: bool) -> Iterator[str]:
    """Return the beginnings by which the words are read. The engine returns all words with one
    beginning at once, so those of a large index are read in parts."""
    if not is_large:
        yield ""
        return
    plain = [chr(code) for code in range(_FIRST_LETTER, _FIRST_LETTER + 26)]
    yield from (first + second for first in plain for second in plain)
    for code in range(_FIRST_LETTER + 26, _END):
        letter = chr(code)
        if unicodedata.category(letter)[0] == "L" and letter == letter.casefold():
            yield letter
