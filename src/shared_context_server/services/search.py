"""Fuzzy search in one session or in all that the caller may see, within a time limit."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from shared_context_server import policy
from shared_context_server.errors import InvalidArgument, MessageNotFound, SessionNotFound
from shared_context_server.models import Caller, Message
from shared_context_server.services.context import Services
from shared_context_server.services.corpus import Block, Corpus
from shared_context_server.services.late_imports import SEARCH, import_late
from shared_context_server.services.memory_search import search_memory
from shared_context_server.services.messages import weigh_message
from shared_context_server.services.previews import Preview, preview_in_steps
from shared_context_server.services.ranking import Candidate, MemoryHit, Ranking
from shared_context_server.services.scoring import MAX_QUERY_WORDS, Query
from shared_context_server.services.search_request import SearchMode, SearchRequest, Within
from shared_context_server.services.sessions import list_session_ids
from shared_context_server.services.slices import Work, run_in_slices
from shared_context_server.storage.rules.pages import ITEM_OVERHEAD_BYTES, count_bytes, page_budget

TIME_LIMIT_S = 1.5
PREVIEW_LIMIT_S = 0.5  # for all previews; after that the beginning of a message is its preview
PREVIEW_BEGINNING_CHARS = 160


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A match. `shortened`: the answer is full, so the message comes without metadata and
    recipients, and with its preview in place of the content. `highlights`: where the matches stand
    in `match_preview`."""

    message: Message
    score: float
    match_preview: str
    highlights: list[tuple[int, int]]
    shortened: bool = False


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The result of a search. `scanned`: the number of visible messages that were compared.
    `exhaustive`: these are all of them, and all memory that was asked for. `next_cursor`: None if
    there is nothing after this page."""

    hits: list[SearchHit]
    memory: list[MemoryHit]
    next_cursor: str | None
    scanned: int
    exhaustive: bool
    search_time_ms: float


@dataclass(slots=True)
class _Found:
    """The best matches so far, of messages and of memory."""

    best: list[Candidate]
    scanned: int = 0
    exhaustive: bool = True


@dataclass(frozen=True, slots=True)
class _Search:
    """One search of messages: what is asked for, by whom, and what is found."""

    services: Services
    caller: Caller
    query: Query
    request: SearchRequest
    ranking: Ranking
    found: _Found
    ends_at: float


async def search_context(
    services: Services, caller: Caller, request: SearchRequest
) -> SearchAnswer:
    """Return one page of the matches in the order asked for, newer ones first among equals. After
    TIME_LIMIT_S it returns what was found so far, with `exhaustive` false."""
    started = time.monotonic()
    _require_mode(request.mode)
    ranking = Ranking(request.sort, request.limit, request.cursor)
    await import_late(SEARCH)
    query = _check_query(request.query)
    ends_at = started + TIME_LIMIT_S
    found = _Found([])
    if request.within is not Within.MESSAGES:
        entries = await search_memory(services, caller, query, request, ends_at - TIME_LIMIT_S / 2)
        found.best = ranking.keep([], entries.matches)
        found.scanned, found.exhaustive = entries.scanned, entries.exhaustive
    if request.within is not Within.MEMORY:
        search = _Search(services, caller, query, request, ranking, found, ends_at)
        if request.session_id is None:
            await _search_sessions(search)
        else:
            await _search_session(search, request.session_id)
    page, next_cursor = ranking.cut(found.best)
    return SearchAnswer(
        hits=await _show(services, caller, query, page),
        memory=[candidate.memory for candidate in page if candidate.memory is not None],
        next_cursor=next_cursor,
        scanned=found.scanned,
        exhaustive=found.exhaustive,
        search_time_ms=round((time.monotonic() - started) * 1000, 3),
    )


def _require_mode(mode: SearchMode) -> None:
    if mode is not SearchMode.FUZZY:
        raise InvalidArgument(
            f"mode {mode.value!r} needs the extra 'semantic', which this server does not have.",
            field="mode",
            suggestion="Search with mode='fuzzy', or ask whoever runs the server for the extra.",
            extra="semantic",
        )


async def _search_sessions(search: _Search) -> None:
    """Search the sessions that the caller may see, the newest first, until the time is up."""
    async for session_id in list_session_ids(search.services, search.caller):
        if time.monotonic() >= search.ends_at:
            search.found.exhaustive = False
            return
        try:
            await _search_session(search, session_id)
        except SessionNotFound:
            continue  # deleted meanwhile


async def _search_session(search: _Search, session_id: str) -> None:
    services, found, ends_at = search.services, search.found, search.ends_at
    corpus, session, is_current = await services.corpora.refresh(
        session_id, ends_at - TIME_LIMIT_S / 2
    )
    policy.require_session_read(search.caller, session)
    found.exhaustive = found.exhaustive and is_current
    async with aclosing(_list_blocks(services, corpus, ends_at)) as blocks:
        async for piece in blocks:
            if piece is None:
                found.exhaustive = False
                break
            block, count = piece
            hidden = _list_hidden(block, search.caller, count)
            scores = await run_in_slices(
                _match(block, search.query, search.request, hidden), ends_at
            )
            if scores is None:
                found.exhaustive = False
                break
            found.scanned += count - len(hidden)
            matches = _list_matches(block, count, scores, search.caller, search.request)
            found.best = search.ranking.keep(found.best, matches)


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


def _match(
    block: Block, query: Query, request: SearchRequest, hidden: frozenset[int]
) -> Work[dict[int, float]]:
    """Return the scores of the messages that reach the threshold, by their index in the block. Only
    public messages count for how rare a word is, so that a score tells nobody of the others."""
    not_public = frozenset(block.hidden)
    best = yield from block.contents.match_in_steps(
        query, request.fuzzy_threshold, hidden, not_public
    )
    if request.search_metadata:
        scores = yield from block.metadata.match_in_steps(
            query, request.fuzzy_threshold, hidden, not_public
        )
        for index, score in scores.items():
            best[index] = max(score, best.get(index, 0.0))
    return best


def _list_matches(
    block: Block,
    count: int,
    scores: dict[int, float],
    caller: Caller,
    request: SearchRequest,
) -> Iterator[Candidate]:
    """Return the matches that the caller asked for and may see."""
    for index, score in scores.items():
        if index < count:
            message = block.messages[index]
            if _is_wanted(message, request) and policy.can_see_message(caller, message):
                yield Candidate.of_message(message, score)


def _is_wanted(message: Message, request: SearchRequest) -> bool:
    return (
        (request.visibility is None or message.visibility is request.visibility)
        and (request.sender is None or message.sender == request.sender)
        and (request.start_time is None or message.timestamp >= request.start_time)
        and (request.end_time is None or message.timestamp <= request.end_time)
    )


def _list_hidden(block: Block, caller: Caller, count: int) -> frozenset[int]:
    """Return the indexes of the messages that the caller may not see."""
    return frozenset(
        index
        for index in block.hidden
        if index < count and not policy.can_see_message(caller, block.messages[index])
    )


async def _show(
    services: Services, caller: Caller, query: Query, best: list[Candidate]
) -> list[SearchHit]:
    """Read the messages of the hits from the store, as many in full as fit into one answer."""
    guard = partial(policy.require_session_read, caller)
    ends_at = time.monotonic() + PREVIEW_LIMIT_S
    left = page_budget(len(best))
    hits: list[SearchHit] = []
    for candidate in best:
        known = candidate.message
        if known is None:
            continue
        try:
            message = await services.store.messages.get(known.session_id, known.id, caller, guard)
        except MessageNotFound:
            continue  # deleted meanwhile
        shown = await run_in_slices(preview_in_steps(query, message.content), ends_at)
        if shown is None:
            shown = Preview(message.content[:PREVIEW_BEGINNING_CHARS] + "…")
        hit = SearchHit(message, candidate.score, shown.text, shown.highlights)
        size = weigh_message(message)
        if hits and size > left:
            hit = replace(hit, message=_shorten(message, shown.text), shortened=True)
            size = ITEM_OVERHEAD_BYTES
        left -= size + count_bytes(shown.text)
        hits.append(hit)
    return hits


def _shorten(message: Message, shown: str) -> Message:
    return message._replace(content=shown, metadata={}, recipients=[])
