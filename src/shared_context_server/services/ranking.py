"""Order the matches of a search, and cut them into pages."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import NamedTuple

from shared_context_server.errors import InvalidArgument
from shared_context_server.models import MemoryAddress, Message
from shared_context_server.services.paging import decode_cursor, encode_cursor, to_microseconds
from shared_context_server.services.search_request import SearchMode, SortOrder

RANK_CONSTANT = 60
MAX_COUNT = 2**53  # no store has more texts, and a float has each number up to it


@dataclass(frozen=True, slots=True)
class MemoryHit:
    """A memory entry that matches, without its value."""

    address: MemoryAddress
    version: int
    updated_at: datetime
    updated_by: str
    score: float
    match_preview: str
    highlights: list[tuple[int, int]]


class Candidate(NamedTuple):
    """A match: of a message or of memory. Among equals messages come first, by `number`, which is
    the id, then memory, by the time of its last change; `name` tells entries of one time apart."""

    score: float
    moment: datetime
    is_message: bool
    number: int
    name: str
    message: Message | None = None
    memory: MemoryHit | None = None

    @classmethod
    def of_message(cls, message: Message, score: float) -> Candidate:
        return cls(score, message.timestamp, True, message.id, "", message=message)

    @classmethod
    def of_memory(cls, hit: MemoryHit) -> Candidate:
        name = f"{hit.address.session_id or ''}/{hit.address.scope.value}/{hit.address.key}"
        number = to_microseconds(hit.updated_at)
        return cls(hit.score, hit.updated_at, False, number, name, memory=hit)


_Place = tuple[int, int, int, str]


class Ranking:
    """The order of a search, and which page of it is asked for. Raises InvalidArgument for a cursor
    of another search or order. `asked`: a name of what is searched. `basis`: the numbers from which
    the scores follow, kept in the cursor so that all pages have the same scores; None until the
    first page sets them."""

    def __init__(
        self,
        sort: SortOrder,
        limit: int,
        cursor: str | None,
        mode: SearchMode = SearchMode.FUZZY,
        asked: str = "",
    ) -> None:
        self._sort = sort
        self._asked = asked
        self._order = sort.value if mode is SearchMode.FUZZY else f"{sort.value} {mode.value}"
        self._limit = limit
        self._after: _Place | None = None
        self.basis: list[int] | None = None
        if cursor is not None:
            sorted_by, asked_then, first, kind, number, name, basis = decode_cursor(
                cursor, str, str, int, int, int, str, str
            )
            self.basis = _read_basis(str(basis))
            if sorted_by != self._order or asked_then != asked:
                raise InvalidArgument(
                    _explain(str(sorted_by), is_other=sorted_by == self._order),
                    field="cursor",
                    suggestion="Repeat the search with the arguments of its first page.",
                )
            self._after = (int(str(first)), int(str(kind)), int(str(number)), str(name))

    def keep(self, best: Iterable[Candidate], more: Iterable[Candidate]) -> list[Candidate]:
        """Return the best of both, in order: those of the page, and one more if there are any."""
        after = self._after
        new = (match for match in more if after is None or self._place(match) < after)
        return heapq.nlargest(self._limit + 1, chain(best, new), key=self._place)

    def without_pages(self, limit: int) -> Ranking:
        """Return the order of the best, from the first on, with the basis of this one."""
        ranking = Ranking(SortOrder.SCORE, limit, None)
        ranking.basis = self.basis
        return ranking

    def cut(self, best: list[Candidate]) -> tuple[list[Candidate], str | None]:
        """Return the page, and the cursor of the next one if there is one."""
        page = best[: self._limit]
        if len(best) <= self._limit:
            return page, None
        basis = ",".join(map(str, self.basis or ()))
        return page, encode_cursor(self._order, self._asked, *self._place(page[-1]), basis)

    def _place(self, match: Candidate) -> _Place:
        first = round(match.score * 100)
        if self._sort is SortOrder.NEWEST:
            first = to_microseconds(match.moment)
        return first, int(match.is_message), match.number, match.name


def fuse(*lists: Sequence[Candidate]) -> list[Candidate]:
    """Return the matches of all lists by reciprocal rank fusion (Cormack, Clarke and Büttcher,
    SIGIR 2009): each adds 1 / (60 + rank). The score is its share, in percent, of what the first of
    all lists has."""
    shares: dict[tuple[bool, int, str], float] = {}
    found: dict[tuple[bool, int, str], Candidate] = {}
    for ranked in lists:
        for rank, match in enumerate(ranked, 1):
            name = (match.is_message, match.number, match.name)
            shares[name] = shares.get(name, 0.0) + 1 / (RANK_CONSTANT + rank)
            found.setdefault(name, match)
    first = len(lists) / (RANK_CONSTANT + 1)
    return [
        match._replace(score=round(100 * shares[name] / first, 2)) for name, match in found.items()
    ]


def _explain(order: str, *, is_other: bool) -> str:
    if is_other:
        return "cursor belongs to a search with other arguments, such as another query."
    sort, _, mode = order.partition(" ")
    return (
        f"cursor belongs to a search with sort={sort!r}, mode={mode or SearchMode.FUZZY.value!r}."
    )


def _read_basis(text: str) -> list[int] | None:
    if not text:
        return None
    try:
        numbers = [max(0, int(number)) for number in text.split(",")]
    except ValueError as exc:
        raise InvalidArgument("cursor is not one of a search.", field="cursor") from exc
    if max(numbers) > MAX_COUNT:
        raise InvalidArgument("cursor is not one of a search.", field="cursor")
    return numbers
