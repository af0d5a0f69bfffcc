"""Find messages and memory entries by their meaning, with the index of vectors.

The score is 50 × (1 + cosine) of the two vectors: 100 for the same text, about 50 for texts that have
nothing in common. Of a long text the nearest window counts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

from shared_context_server.models import Caller, MemoryAddress, Message, SessionSummary
from shared_context_server.search_index.progress import Progress
from shared_context_server.search_index.queries import Scope
from shared_context_server.services.batches import Item
from shared_context_server.services.context import Services
from shared_context_server.services.found import is_wanted, read_entries, read_messages
from shared_context_server.services.ranking import Candidate
from shared_context_server.services.search_request import SearchRequest, Within
from shared_context_server.services.uncovered import Uncovered

Starts = dict[int | MemoryAddress, int]


@dataclass(slots=True)
class Nearest:
    """The nearest, best first. `starts`: where in each text the nearest window starts. `scanned`: how
    many messages and entries were compared. `is_whole`: these are all that the caller may see."""

    candidates: list[Candidate] = field(default_factory=list)
    starts: Starts = field(default_factory=dict)
    scanned: int = 0
    is_whole: bool = False


async def find_nearest(
    services: Services,
    caller: Caller,
    request: SearchRequest,
    summary: SessionSummary | None,
    *,
    scope: Scope,
    everything: Scope,
    limit: int,
) -> Nearest:
    """Return at most `limit` of the scope that reach the threshold. `everything`: the scope without
    the filters of the search, of which `scanned` is the number."""
    found = await services.vectors.look_up(request.query, scope, everything, limit)
    if found is None:
        return Nearest()
    scores: dict[int | MemoryAddress, float] = {}
    starts: Starts = {}
    for match in found.matches:
        score = round(50 * (1 + match.similarity), 2)
        if score >= request.fuzzy_threshold:
            name = match.address or match.message_id
            scores[name], starts[name] = min(100.0, score), match.start
    store = services.store
    items: list[Item] = []
    pages = read_messages(store, caller, (name for name in scores if isinstance(name, int)))
    async with aclosing(pages) as read:  # type: ignore[type-var]  # it is a generator
        async for messages in read:
            items += messages
    addresses = [name for name in scores if isinstance(name, MemoryAddress)]
    items += await read_entries(store, caller, request.session_id, addresses)
    candidates = [_to_candidate(item, scores) for item in items if is_wanted(item, request)]
    is_whole = found.progress.is_complete and not await _has_news(
        services, caller, request, summary, found.progress
    )
    return Nearest(sorted(candidates, reverse=True), starts, found.count, is_whole)


def name_of(item: Item) -> int | MemoryAddress:
    return item.id if isinstance(item, Message) else item.address


def _to_candidate(item: Item, scores: dict[int | MemoryAddress, float]) -> Candidate:
    score = scores[name_of(item)]
    if isinstance(item, Message):
        return Candidate.of_message(item, score)
    return Candidate.of_memory(item, score)


async def _has_news(
    services: Services,
    caller: Caller,
    request: SearchRequest,
    summary: SessionSummary | None,
    progress: Progress,
) -> bool:
    """Whether there is something that the caller may see and the index has not read yet."""
    uncovered = Uncovered(services.store, caller, progress)
    if await uncovered.is_set_back():
        return True
    if request.within is not Within.MEMORY:
        pages: AsyncIterator[list[Message]] = (
            uncovered.list_everywhere()
            if summary is None
            else uncovered.list_session(summary.session)
        )
        async with aclosing(pages) as listed:  # type: ignore[type-var]  # they are generators
            async for page in listed:
                if page:
                    return True
    if request.within is not Within.MESSAGES:
        addresses = await uncovered.list_memory()
        if await read_entries(services.store, caller, request.session_id, addresses):
            return True
    return not uncovered.is_whole
