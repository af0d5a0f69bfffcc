"""Fuzzy search in a session, from the newest messages back, within a time limit."""

from __future__ import annotations

import heapq
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from shared_context_server import policy
from shared_context_server.errors import InvalidArgument, MessageNotFound
from shared_context_server.models import Caller, Message, Visibility
from shared_context_server.services.context import Services
from shared_context_server.services.corpus import Block, Corpus
from shared_context_server.services.late_imports import SEARCH, import_late
from shared_context_server.services.messages import weigh_message
from shared_context_server.services.previews import preview_in_steps
from shared_context_server.services.scoring import MAX_QUERY_WORDS, Query
from shared_context_server.services.slices import Work, run_in_slices
from shared_context_server.storage.rules.pages import ITEM_OVERHEAD_BYTES, count_bytes, page_budget

TIME_LIMIT_S = 1.5
PREVIEW_LIMIT_S = 0.5  # for all previews; after that the beginning of a message is its preview
PREVIEW_BEGINNING_CHARS = 160


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """The arguments of a search. `visibility` None: all that the caller may see."""

    session_id: str
    query: str
    fuzzy_threshold: float
    limit: int
    search_metadata: bool = True
    visibility: Visibility | None = None
    sender: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A match. `shortened`: the answer is full, so the message comes without metadata and
    recipients, and with its preview in place of the content."""

    message: Message
    score: float
    match_preview: str
    shortened: bool = False


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The result of a search. `scanned`: the number of visible messages that were compared.
    `exhaustive`: these are all of them."""

    hits: list[SearchHit]
    scanned: int
    exhaustive: bool
    search_time_ms: float


@dataclass(slots=True)
class _Found:
    """The best matches so far, as (score, seq, message)."""

    best: list[tuple[float, int, Message]] = field(default_factory=list)
    scanned: int = 0
    exhaustive: bool = True


async def search_context(
    services: Services, caller: Caller, request: SearchRequest
) -> SearchAnswer:
    """Return the best matches, best first, newer ones first among equals. After TIME_LIMIT_S it
    returns what was found so far, with `exhaustive` false."""
    started = time.monotonic()
    await import_late(SEARCH)
    query = _check_query(request.query)
    ends_at = started + TIME_LIMIT_S
    corpus, session, is_current = await services.corpora.refresh(
        request.session_id, started + TIME_LIMIT_S / 2
    )
    policy.require_session_read(caller, session)
    found = _Found(exhaustive=is_current)
    async with aclosing(_list_blocks(services, corpus, ends_at)) as blocks:
        async for piece in blocks:
            if piece is None:
                found.exhaustive = False
                break
            block, count = piece
            scores = await run_in_slices(_match(block, query, request), ends_at)
            if scores is None:
                found.exhaustive = False
                break
            found.scanned += _count_visible(block, caller, count)
            _keep_best(found, block, count, scores, caller, request)
    return SearchAnswer(
        hits=await _show(services, caller, query, found.best),
        scanned=found.scanned,
        exhaustive=found.exhaustive,
        search_time_ms=round((time.monotonic() - started) * 1000, 3),
    )


def _check_query(text: str) -> Query:
    query = Query(text)
    if len(query.words) > MAX_QUERY_WORDS:
        raise InvalidArgument(
            f"query has {len(query.words)} different words; {MAX_QUERY_WORDS} is the limit.",
            field="query",
            suggestion="Search for the few words that matter.",
            limit_words=MAX_QUERY_WORDS,
        )
    return query


async def _list_blocks(
    services: Services, corpus: Corpus, ends_at: float
) -> AsyncGenerator[tuple[Block, int] | None]:
    """Yield the log's blocks from the newest back, each with its number of messages to compare;
    yield None instead of the next block when the time is up."""
    await services.corpora.extend_back(corpus, ends_at - TIME_LIMIT_S / 2)
    low = corpus.high
    for block in reversed(list(corpus.blocks)):
        count = len(block.messages)  # other searches may add to it meanwhile
        low = min((message.seq - 1 for message in block.messages[:count]), default=low)
        yield block, count
    while low > 0:
        async with services.corpora.open_older(corpus.session_id, low, ends_at) as older:
            if older is None:
                yield None
                return
            yield older, len(older.messages)
            low = older.low


def _match(block: Block, query: Query, request: SearchRequest) -> Work[dict[int, float]]:
    """Return the scores of the messages that reach the threshold, by their index in the block."""
    best = yield from block.contents.match_in_steps(query, request.fuzzy_threshold)
    if request.search_metadata:
        scores = yield from block.metadata.match_in_steps(query, request.fuzzy_threshold)
        for index, score in scores.items():
            best[index] = max(score, best.get(index, 0.0))
    return best


def _keep_best(
    found: _Found,
    block: Block,
    count: int,
    scores: dict[int, float],
    caller: Caller,
    request: SearchRequest,
) -> None:
    matches = (
        (score, block.messages[index].seq, block.messages[index])
        for index, score in scores.items()
        if index < count
    )
    visible = (
        match
        for match in matches
        if _is_wanted(match[2], request) and policy.can_see_message(caller, match[2])
    )
    found.best = heapq.nlargest(request.limit, [*found.best, *visible], key=lambda m: m[:2])


def _is_wanted(message: Message, request: SearchRequest) -> bool:
    return (
        (request.visibility is None or message.visibility is request.visibility)
        and (request.sender is None or message.sender == request.sender)
        and (request.start_time is None or message.timestamp >= request.start_time)
        and (request.end_time is None or message.timestamp <= request.end_time)
    )


def _count_visible(block: Block, caller: Caller, count: int) -> int:
    unseen = sum(
        not policy.can_see_message(caller, block.messages[index])
        for index in block.hidden
        if index < count
    )
    return count - unseen


async def _show(
    services: Services, caller: Caller, query: Query, best: Iterable[tuple[float, int, Message]]
) -> list[SearchHit]:
    """Read the messages of the hits from the store, as many in full as fit into one answer."""
    guard = partial(policy.require_session_read, caller)
    ends_at = time.monotonic() + PREVIEW_LIMIT_S
    best = list(best)
    left = page_budget(len(best))
    hits: list[SearchHit] = []
    for score, _, known in best:
        try:
            message = await services.store.messages.get(known.session_id, known.id, caller, guard)
        except MessageNotFound:
            continue  # deleted meanwhile
        shown = await run_in_slices(preview_in_steps(query, message.content), ends_at)
        if shown is None:
            shown = message.content[:PREVIEW_BEGINNING_CHARS] + "…"
        hit = SearchHit(message, score, shown)
        size = weigh_message(message)
        if hits and size > left:
            hit = replace(hit, message=_shorten(message, shown), shortened=True)
            size = ITEM_OVERHEAD_BYTES
        left -= size + count_bytes(shown)
        hits.append(hit)
    return hits


def _shorten(message: Message, shown: str) -> Message:
    return message._replace(content=shown, metadata={}, recipients=[])
