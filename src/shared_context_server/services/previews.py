"""Find the part of a text that matches a query best, for the preview of a search hit."""

from __future__ import annotations

import unicodedata

from shared_context_server.services.scoring import Query
from shared_context_server.services.slices import Work, finish
from shared_context_server.services.words import PIECE_CHARS, normalize_in_pieces, split_into_pieces

PREVIEW_CHARS = 160
COMPARED_CHARS = 64  # of the query; a longer one is compared many times as slowly
WINDOW_CHARS = 20_000  # of the text, compared at once


def preview(query: str, content: str) -> str:
    """Return the part of `content` around the best match: at most PREVIEW_CHARS, with an ellipsis
    where it is cut."""
    return finish(preview_in_steps(Query(query), content))


def preview_in_steps(query: Query, content: str) -> Work[str]:
    if len(content) <= PREVIEW_CHARS:
        return content
    pieces: list[str] = []
    for piece in normalize_in_pieces(content):
        pieces.append(piece)
        yield
    found = yield from _find(query, "".join(pieces))
    middle = _find_original(content, pieces, found)
    start = max(0, min(middle - PREVIEW_CHARS // 2, len(content) - PREVIEW_CHARS))
    end = start + PREVIEW_CHARS
    return ("…" if start else "") + content[start:end] + ("…" if end < len(content) else "")


def _find(query: Query, text: str) -> Work[int]:
    """Return the middle of the best match in the normalized text: of the whole query, else of its
    longest word that occurs, else of the most similar part."""
    for sought in (query.text, *sorted(query.words, key=len, reverse=True)):
        if sought and (place := text.find(sought)) >= 0:
            return place + len(sought) // 2
        yield
    from rapidfuzz import fuzz  # noqa: PLC0415 - services.late_imports says why

    sought = query.text[:COMPARED_CHARS]
    best_score, middle = 0.0, 0
    step = WINDOW_CHARS - 2 * COMPARED_CHARS
    for start in range(0, len(text), step):
        found = fuzz.partial_ratio_alignment(sought, text[start : start + WINDOW_CHARS])
        if found is not None and found.score > best_score:
            best_score, middle = found.score, start + (found.dest_start + found.dest_end) // 2
        yield
    return middle


def _find_original(content: str, pieces: list[str], place: int) -> int:
    """Return the position in the content of the character at `place` in its normalized pieces."""
    for (start, end), piece in zip(split_into_pieces(content), pieces, strict=True):
        if place < len(piece):
            return start + _find_in_piece(content[start:end], place)
        place -= len(piece)
    return len(content)


def _find_in_piece(text: str, place: int) -> int:
    # Case folding changes the length of some characters: ß, ligatures, half-width kana with marks.
    low, high = 0, min(len(text), PIECE_CHARS)
    while low < high:
        middle = (low + high) // 2
        if len(unicodedata.normalize("NFKC", text[: middle + 1]).casefold()) > place:
            high = middle
        else:
            low = middle + 1
    return low
