"""A search under way: what it has found so far, and how it compares messages with the query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from shared_context_server.models import Caller, MemoryAddress, Message
from shared_context_server.services.context import SearchServices
from shared_context_server.services.found import is_wanted_message
from shared_context_server.services.indexed_documents import join_texts
from shared_context_server.services.ranking import Candidate, Ranking
from shared_context_server.services.scoring import Hit, Query, score_in_steps
from shared_context_server.services.search_request import SearchRequest, SortOrder
from shared_context_server.services.slices import run_in_slices

COMPARED_CHARS = 100_000  # of texts that are compared at once


@dataclass(slots=True)
class Search:
    """A search under way. `best`: the best matches so far, in order; `known`: what was compared;
    `windows`: the parts of texts that are nearest in meaning; `hits`: what matches in the messages of
    `best`, which the previews show."""

    services: SearchServices
    caller: Caller
    query: Query
    request: SearchRequest
    ranking: Ranking
    ends_at: float
    best: list[Candidate] = field(default_factory=list)
    known: set[int | MemoryAddress] = field(default_factory=set)
    windows: dict[int | MemoryAddress, str] = field(default_factory=dict)
    hits: dict[int, dict[str, tuple[Hit, ...]]] = field(default_factory=dict)
    scanned: int = 0
    exhaustive: bool = True

    def has_better(self, score: float) -> bool:
        """Whether the page is full of matches with a better score."""
        return (
            self.request.sort is SortOrder.SCORE
            and len(self.best) > self.request.limit
            and self.best[self.request.limit].score > score
        )

    async def compare(self, messages: Sequence[Message]) -> bool:
        """Score the messages and keep the best of all. Return whether there was time for it; what was
        scored before counts."""
        wanted = [
            m for m in messages if is_wanted_message(m, self.request) and m.id not in self.known
        ]
        for some in _split_by_length(wanted):
            if not await self._compare_some(some):
                return False
        return True

    async def _compare_some(self, wanted: Sequence[Message]) -> bool:
        texts = [message.content for message in wanted]
        owners = list(range(len(wanted)))
        if self.request.search_metadata:
            for index, message in enumerate(wanted):
                if message.metadata:
                    texts.append(join_texts(message.metadata))
                    owners.append(index)
        hits: dict[str, tuple[Hit, ...]] = {}
        scoring = score_in_steps(self.query, texts, hits)
        scores = await run_in_slices(scoring, self.ends_at, chars=sum(map(len, texts)))
        if scores is None:
            return False
        best = [0.0] * len(wanted)
        for index, score in zip(owners, scores, strict=True):
            best[index] = max(best[index], score)
        lowest = max(self.request.fuzzy_threshold, 0.01)
        self.known.update(message.id for message in wanted)
        self.best = self.ranking.keep(
            self.best,
            (
                Candidate.of_message(message, score)
                for message, score in zip(wanted, best, strict=True)
                if score >= lowest
            ),
        )
        self.hits |= dict.fromkeys((message.id for message in wanted), hits)
        kept = (match.number for match in self.best if match.is_message)
        self.hits = {number: self.hits[number] for number in kept}
        return True


def _split_by_length(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Return the messages in groups: long ones in small groups, so that a search whose time ends has
    some of them."""
    start = chars = 0
    for number, message in enumerate(messages):
        if chars and chars + len(message.content) > COMPARED_CHARS:
            yield messages[start:number]
            start, chars = number, 0
        chars += len(message.content)
    if start < len(messages):
        yield messages[start:]
