"""Show the part of a text that matches a query best, and where in it the matches stand."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from shared_context_server.services.scoring import Hit, Query, find_hits_in_steps
from shared_context_server.services.slices import Work, finish
from shared_context_server.services.terms import (
    Kind,
    letter_pairs,
    list_chunks,
    place_chunks,
    split_letters,
)
from shared_context_server.services.words import fold_accents, normalize_word, split_into_pieces

PREVIEW_CHARS = 160
TRIED_PLACES = 200  # of the word that occurs least
_CUT = "…"


@dataclass(frozen=True, slots=True)
class Preview:
    """A part of a text. `highlights`: start and end of each match in `text`, in characters (Unicode
    code points), in order and without overlaps."""

    text: str
    highlights: list[tuple[int, int]] = field(default_factory=list)


class _Place(NamedTuple):
    """Where a part of the query stands in a content: units `first` to `last`."""

    start: int
    end: int
    first: int
    last: int
    similarity: float


def preview(query: str, content: str) -> Preview:
    """Return the part of `content` with the best matches: at most PREVIEW_CHARS, with an ellipsis
    where it is cut. Without any match, its beginning."""
    return finish(preview_in_steps(Query(query), content))


def preview_in_steps(
    query: Query, content: str, hits: Mapping[str, Sequence[Hit]] | None = None
) -> Work[Preview]:
    """`hits`: the matches in the chunks of the content, if they are known."""
    places = yield from _find_places(query, content, hits)
    start, end = 0, len(content)
    if end > PREVIEW_CHARS:
        best = yield from _choose(query, places)
        middle = (best[0] + best[1]) // 2
        start = max(0, min(middle - PREVIEW_CHARS // 2, len(content) - PREVIEW_CHARS))
        end = start + PREVIEW_CHARS
    lead = _CUT if start else ""
    shift = len(lead) - start
    shown = (place for place in places if start <= place.start and place.end <= end)
    return Preview(
        lead + content[start:end] + (_CUT if end < len(content) else ""),
        [(one + shift, other + shift) for one, other in _merge(shown)],
    )


def _find_places(
    query: Query, content: str, hits: Mapping[str, Sequence[Hit]] | None
) -> Work[list[_Place]]:
    """Return the places of the matches, by their start."""
    if not query.units:
        place = content.find(query.text) if query.text else -1
        return [_Place(place, place + len(query.text), 0, 0, 1.0)] if place >= 0 else []
    yield
    if hits is None:
        hits = yield from find_hits_in_steps(query, [list_chunks(content)])
    places: list[_Place] = []
    if not hits:
        return places
    for piece_start, piece_end in split_into_pieces(content):
        for chunk, start in place_chunks(content[piece_start:piece_end], hits.keys()):
            shift = piece_start + start
            for hit in hits[chunk]:
                spans = _find_spans(query, hit, chunk)
                places += [
                    _Place(shift + one, shift + other, hit.first, hit.last, hit.similarity)
                    for one, other in spans
                ]
        yield
    places.sort()
    return places


def _find_spans(query: Query, hit: Hit, chunk: str) -> list[tuple[int, int]]:
    """Return where the part of the query stands in a chunk: the word, or in a run of letters all
    of the part, or its pairs."""
    if hit.token.kind is not Kind.RUN:
        return [(hit.token.start, hit.token.end)]
    folded = ""
    letters: list[tuple[int, int]] = []  # for each folded character, the letter it came from
    run = chunk[hit.token.start : hit.token.end]
    for start, end in split_letters(run):
        written = fold_accents(normalize_word(run[start:end]))
        folded += written
        letters += [(hit.token.start + start, hit.token.start + end)] * len(written)
    term = query.units[hit.first].term
    sought = [term] if term in folded else list(letter_pairs(term))[:-1]
    spans = []
    for part in sought:
        place = folded.find(part)
        while place >= 0:
            spans.append((letters[place][0], letters[place + len(part) - 1][1]))
            place = folded.find(part, place + len(part))
    return spans


def _choose(query: Query, places: list[_Place]) -> Work[tuple[int, int]]:
    """Return the start and end of the matches that are shown: near a place of the word that occurs
    least, where most of the query stands together."""
    if not places:
        return 0, 0
    if not query.units:
        return places[0].start, places[0].end
    by_unit: dict[int, list[int]] = {}
    for number, place in enumerate(places):
        for unit in range(place.first, place.last + 1):
            by_unit.setdefault(unit, []).append(number)
    yield
    tried = min(by_unit.values(), key=len)
    starts = [place.start for place in places]
    best_value, best = -1.0, (0, 0)
    for count, number in enumerate(tried[:TRIED_PLACES]):
        anchor = places[number]
        reach = PREVIEW_CHARS // 2
        low = bisect_left(starts, anchor.start - reach)
        high = bisect_left(starts, anchor.start + reach)
        shares: dict[int, float] = {}
        for place in places[low:high]:
            for unit in range(place.first, place.last + 1):
                shares[unit] = max(place.similarity, shares.get(unit, 0.0))
        value = sum(share * query.weights[unit] for unit, share in shares.items())
        if value > best_value:
            inside = places[low:high]
            best_value, best = value, (inside[0].start, max(place.end for place in inside))
        if count % 20 == 19:
            yield
    return best


def _merge(places: Iterable[_Place]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for place in places:
        if merged and place.start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], place.end))
        else:
            merged.append((place.start, place.end))
    return merged
