"""Order the matches of a search, and cut them into pages."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain
from typing import NamedTuple

from shared_context_server.errors import InvalidArgument
from shared_context_server.models import MemoryEntry, Message
from shared_context_server.services.paging import decode_cursor, encode_cursor, to_microseconds
from shared_context_server.services.search_request import SearchMode, SortOrder

RANK_CONSTANT = 60


class Candidate(NamedTuple):
    """A match: of a message or of memory. Among equals messages come first, by `number`, which is
    the id, then memory, by the time of its last change; `name` tells entries of one time apart."""

    score: float
    moment: datetime
    is_message: bool
    number: int
    name: str
    message: Message | None = None
    memory: MemoryEntry | None = None

    @classmethod
    def of_message(cls, message: Message, score: float) -> Candidate:
        return cls(score, message.timestamp, True, message.id, "", message=message)

    @classmethod
    def of_memory(cls, entry: MemoryEntry, score: float) -> Candidate:
        place = entry.address
        name = f"{place.session_id or ''}/{place.scope.value}/{place.key}"
        number = to_microseconds(entry.updated_at)
        return cls(score, entry.updated_at, False, number, name, memory=entry)


_Place = tuple[int, int, int, str]


class Ranking:
    """The order of a search, and which page of it is asked for. `shown`: the number of matches on
    the pages before. `weights`: those of the query's words on the first page, in thousandths; they
    depend on the texts that there are, and all pages have to agree. Raises InvalidArgument for a cursor of another order."""

    def __init__(
        self,
        sort: SortOrder,
        limit: int,
        cursor: str | None,
        mode: SearchMode = SearchMode.FUZZY,
    ) -> None:
        self._sort = sort
        self._order = sort.value if mode is SearchMode.FUZZY else f"{sort.value} {mode.value}"
        self._limit = limit
        self._after: _Place | None = None
        self.shown = 0
        self.weights: list[int] | None = None
        if cursor is not None:
            sorted_by, shown, weights, first, kind, number, name = decode_cursor(
                cursor, str, int, str, int, int, int, str
            )
            if sorted_by != self._order:
                raise InvalidArgument(
                    _explain(str(sorted_by)),
                    field="cursor",
                    suggestion="Repeat the search with the arguments of its first page.",
                )
            self.shown = max(0, int(str(shown)))
            self.weights = _read_weights(str(weights))
            self._after = (int(str(first)), int(str(kind)), int(str(number)), str(name))

    def keep(self, best: Iterable[Candidate], more: Iterable[Candidate]) -> list[Candidate]:
        """Return the best of both, in order: those of the page, and one more if there are any."""
        after = self._after
        new = (match for match in more if after is None or self._place(match) < after)
        return heapq.nlargest(self._limit + 1, chain(best, new), key=self._place)

    def without_pages(self, limit: int) -> Ranking:
        """Return the order of the best, from the first on, with the weights of this one."""
        ranking = Ranking(SortOrder.SCORE, limit, None)
        ranking.weights = self.weights
        return ranking

    def cut(
        self, best: list[Candidate], weights: Iterable[float]
    ) -> tuple[list[Candidate], str | None]:
        """Return the page, and the cursor of the next one if there is one."""
        page = best[: self._limit]
        if len(best) <= self._limit:
            return page, None
        shown = self.shown + len(page)
        thousandths = self.weights or [round(weight * 1000) for weight in weights]
        written = " ".join(map(str, thousandths))
        return page, encode_cursor(self._order, shown, written, *self._place(page[-1]))

    @property
    def newest_us(self) -> int | None:
        """The time of the newest match that may follow, in microseconds; None if it may be any."""
        if self._after is None or self._sort is not SortOrder.NEWEST:
            return None
        return self._after[0]

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


def _explain(order: str) -> str:
    sort, _, mode = order.partition(" ")
    return (
        f"cursor belongs to a search with sort={sort!r}, mode={mode or SearchMode.FUZZY.value!r}."
    )


def _read_weights(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split()]
    except ValueError as exc:
        raise InvalidArgument("cursor is not valid.", field="cursor") from exc
