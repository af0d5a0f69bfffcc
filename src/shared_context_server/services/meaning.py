"""Find messages and memory entries by their meaning, with the index of vectors.

The score is 50 × (1 + cosine) of the two vectors: 100 for the same text, about 50 for texts that have
nothing in common. Of a long text the nearest window counts.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from shared_context_server.models import Caller, MemoryAddress, MemoryEntry, Message, SessionSummary
from shared_context_server.search_index.progress import Progress
from shared_context_server.search_index.queries import Scope
from shared_context_server.services.context import SearchServices
from shared_context_server.services.found import is_wanted_message, read_entries, read_messages
from shared_context_server.services.indexed_documents import memory_text
from shared_context_server.services.memory_search import is_wanted
from shared_context_server.services.ranking import Candidate, MemoryHit
from shared_context_server.services.search_request import SearchRequest, Within
from shared_context_server.services.uncovered import Uncovered
from shared_context_server.vector_index.windows import find_window_end


@dataclass(slots=True)
class Nearest:
    """The nearest, best first, memory without previews. `windows`: the nearest window of each text.
    `scanned`: how many messages and entries were compared. `is_whole`: these are all that the caller
    may see."""

    candidates: list[Candidate] = field(default_factory=list)
    windows: dict[int | MemoryAddress, str] = field(default_factory=dict)
    scanned: int = 0
    is_whole: bool = False

    def add(self, candidate: Candidate, name: int | MemoryAddress, window: str) -> None:
        self.candidates.append(candidate)
        self.windows[name] = window


async def find_nearest(
    services: SearchServices,
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
    starts: dict[int | MemoryAddress, int] = {}
    for match in found.matches:
        score = round(50 * (1 + match.similarity), 2)
        if score >= request.fuzzy_threshold:
            name = match.address or match.message_id
            scores[name], starts[name] = min(100.0, score), match.start
    nearest = Nearest(scanned=found.count)
    ids = [name for name in scores if isinstance(name, int)]
    async with aclosing(read_messages(services, caller, ids)) as pages:
        async for messages in pages:
            for message in messages:
                if is_wanted_message(message, request):
                    nearest.add(
                        Candidate.of_message(message, scores[message.id]),
                        message.id,
                        _cut(message.content, starts[message.id]),
                    )
    addresses = [name for name in scores if isinstance(name, MemoryAddress)]
    async with aclosing(read_entries(services, caller, request.session_id, addresses)) as entries:
        async for entry in entries:
            if is_wanted(entry, request):
                nearest.add(
                    Candidate.of_memory(_to_hit(entry, scores[entry.address])),
                    entry.address,
                    _cut(memory_text(entry), starts[entry.address]),
                )
    nearest.candidates.sort(key=lambda match: match[:5], reverse=True)
    nearest.is_whole = found.progress.is_complete and not await _has_news(
        services, caller, request, summary, found.progress
    )
    return nearest


def _cut(text: str, start: int) -> str:
    return text[start : find_window_end(text, start)]


def _to_hit(entry: MemoryEntry, score: float) -> MemoryHit:
    return MemoryHit(
        address=entry.address,
        version=entry.version,
        updated_at=entry.updated_at,
        updated_by=entry.updated_by,
        score=score,
        match_preview="",
        highlights=[],
    )


async def _has_news(
    services: SearchServices,
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
        pages: AsyncGenerator[list[Message]] = (
            uncovered.list_everywhere()
            if summary is None
            else uncovered.list_session(summary.session)
        )
        async with aclosing(pages) as listed:
            async for page in listed:
                if page:
                    return True
    if request.within is not Within.MESSAGES:
        addresses = await uncovered.list_memory()
        new = read_entries(services, caller, request.session_id, addresses)
        async with aclosing(new) as entries:
            async for _ in entries:
                return True
    return not uncovered.is_whole
