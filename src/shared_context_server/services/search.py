"""Fuzzy search over the whole of a session."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from rapidfuzz import fuzz

from shared_context_server import policy
from shared_context_server.models import Caller, Message, Visibility
from shared_context_server.services.context import Services
from shared_context_server.services.corpus import Corpus

PREVIEW_CHARS = 160
MATCHED_INLINE = 10_000  # messages; matching them takes some 4 ms, a thread's hand-over 0.1 ms


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """`visibility` None searches all that the caller may see."""

    session_id: str
    query: str
    threshold: float
    limit: int
    is_metadata_searched: bool = True
    visibility: Visibility | None = None
    sender: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class SearchHit:
    message: Message
    score: float
    match_preview: str


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """`scanned`: messages that were compared and that the caller may see."""

    hits: list[SearchHit]
    scanned: int
    is_exhaustive: bool
    search_time_ms: float


async def search_context(
    services: Services, caller: Caller, request: SearchRequest
) -> SearchAnswer:
    """The best matches, best first, the newer first among equals."""
    guard = partial(policy.require_session_read, caller)
    started = time.perf_counter()
    corpus = await services.corpora.get(request.session_id, guard)
    hits: list[SearchHit] = []
    for index, score in await _rank(corpus, request):
        message = corpus.messages[index]
        if policy.can_see_message(caller, message) and _is_wanted(message, request):
            hits.append(SearchHit(message, score, preview(request.query, message.content)))
            if len(hits) == request.limit:
                break
    return SearchAnswer(
        hits=hits,
        scanned=_count_visible(corpus, caller),
        is_exhaustive=True,
        search_time_ms=round((time.perf_counter() - started) * 1000, 3),
    )


async def _rank(corpus: Corpus, request: SearchRequest) -> list[tuple[int, float]]:
    """Positions and scores, best first. A large corpus is matched in a thread, so that the other
    callers of this process are served meanwhile; the lock keeps it from growing under the search."""
    if len(corpus.messages) <= MATCHED_INLINE:
        return _match(corpus, request)
    async with corpus.lock:
        return await asyncio.to_thread(_match, corpus, request)


def _match(corpus: Corpus, request: SearchRequest) -> list[tuple[int, float]]:
    best = {
        match.index: match.score
        for match in corpus.contents.match(request.query, request.threshold)
    }
    if request.is_metadata_searched:
        for match in corpus.metadata.match(request.query, request.threshold):
            best[match.index] = max(match.score, best.get(match.index, 0.0))
    return sorted(best.items(), key=lambda item: (-item[1], -item[0]))


def _is_wanted(message: Message, request: SearchRequest) -> bool:
    return (
        (request.visibility is None or message.visibility is request.visibility)
        and (request.sender is None or message.sender == request.sender)
        and (request.start_time is None or message.timestamp >= request.start_time)
        and (request.end_time is None or message.timestamp <= request.end_time)
    )


def _count_visible(corpus: Corpus, caller: Caller) -> int:
    seen = sum(policy.can_see_message(caller, corpus.messages[i]) for i in corpus.hidden)
    return len(corpus.messages) - len(corpus.hidden) + seen


def preview(query: str, content: str) -> str:
    """The stretch of `content` around the best match, PREVIEW_CHARS at most and an ellipsis each side."""
    if len(content) <= PREVIEW_CHARS:
        return content
    found = fuzz.partial_ratio_alignment(query.casefold(), content.casefold())
    middle = 0 if found is None else (found.dest_start + found.dest_end) // 2
    start = max(0, min(middle - PREVIEW_CHARS // 2, len(content) - PREVIEW_CHARS))
    end = start + PREVIEW_CHARS
    return ("…" if start else "") + content[start:end] + ("…" if end < len(content) else "")
