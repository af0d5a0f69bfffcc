"""Search in messages and memory: candidates from the index, scores from the scorer.

The index on disk finds what may match and may be seen. What it has not seen yet, usually the messages
of the last second, is compared whole. The store reads the candidates for the caller, so that the
policy is asked once more, and the scorer ranks them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from shared_context_server import policy
from shared_context_server.errors import InvalidArgument
from shared_context_server.models import (
    Caller,
    MemoryAddress,
    MemoryEntry,
    Message,
    Permission,
    SessionSummary,
)
from shared_context_server.search_index.audience import caller_keys
from shared_context_server.search_index.documents import Kind
from shared_context_server.search_index.progress import Progress
from shared_context_server.search_index.queries import CandidateQuery, Scope
from shared_context_server.services.batches import Item, match_in_steps, text_of
from shared_context_server.services.candidates import Looked
from shared_context_server.services.context import Services
from shared_context_server.services.found import is_wanted, read_entries, read_messages
from shared_context_server.services.late_imports import SEARCH, import_late
from shared_context_server.services.meaning import Starts, find_nearest, name_of
from shared_context_server.services.memory_search import list_addresses
from shared_context_server.services.messages import weigh_message
from shared_context_server.services.previews import Preview, preview_in_steps
from shared_context_server.services.ranking import Candidate, Ranking, fuse
from shared_context_server.services.scoring import MAX_QUERY_WORDS, Query, rarity
from shared_context_server.services.search_request import (
    SearchMode,
    SearchRequest,
    SortOrder,
    Within,
)
from shared_context_server.services.slices import run_in_slices
from shared_context_server.services.terms import query_terms
from shared_context_server.services.uncovered import Uncovered
from shared_context_server.steady_time import to_datetime
from shared_context_server.storage.rules.pages import ITEM_OVERHEAD_BYTES, count_bytes, page_budget
from shared_context_server.vector_index.windows import find_window_end

TIME_LIMIT_S = 1.5
PREVIEW_LIMIT_S = 0.5  # for all previews; after that the beginning of a message is its preview
PREVIEW_BEGINNING_CHARS = 160
MIN_CANDIDATES = 100
CANDIDATES_A_HIT = 4
MAX_CANDIDATES = 2_000  # how deep the pages of one search go
HYBRID_DEPTH = 100  # how much of both lists a hybrid search joins
NEAREST = 200  # what a semantic search puts in order of time
MAX_NEAREST = 1_000  # how deep the pages of a semantic search go
MAX_UNCOVERED = 2_000  # messages compared whole while the index does not have them yet
# The scorer may give more than the index estimates, so candidates need a part of the threshold only.
CANDIDATE_SHARE = 0.7

_KINDS: dict[Within, tuple[Kind, ...]] = {
    Within.MESSAGES: (Kind.MESSAGE,),
    Within.MEMORY: (Kind.MEMORY,),
    Within.ALL: (Kind.MESSAGE, Kind.MEMORY),
}


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A match: a message or a memory entry. `shortened`: the answer is full, so a message comes
    without metadata and recipients, and with its preview in place of the content. `highlights`:
    where the matches stand in `match_preview`."""

    score: float
    match_preview: str
    highlights: list[tuple[int, int]]
    message: Message | None = None
    memory: MemoryEntry | None = None
    shortened: bool = False


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The result of a search. `scanned`: the number of visible messages and entries that it covers.
    `exhaustive`: these are all of them. `next_cursor`: None if there is nothing after this page."""

    hits: list[SearchHit]
    next_cursor: str | None
    scanned: int
    exhaustive: bool
    search_time_ms: float


@dataclass(slots=True)
class _Search:
    """A search under way. `best`: the best matches so far, those of one page and one more."""

    services: Services
    caller: Caller
    request: SearchRequest
    query: Query
    ranking: Ranking
    ends_at: float
    best: list[Candidate] = field(default_factory=list)
    compared: set[int | MemoryAddress] = field(default_factory=set)
    scanned: int = 0
    exhaustive: bool = True

    async def compare(self, items: Sequence[Item]) -> bool:
        """Score the items that were not compared yet, and keep the best of all. Return whether there
        was time for it."""
        wanted = [item for item in items if is_wanted(item, self.request) and self._is_new(item)]
        matches = await run_in_slices(
            match_in_steps(
                wanted,
                self.query,
                self.request.fuzzy_threshold,
                with_metadata=self.request.search_metadata,
            ),
            self.ends_at,
        )
        if matches is None:
            return False
        self.best = self.ranking.keep(self.best, matches)
        return True

    def _is_new(self, item: Item) -> bool:
        name = item.id if isinstance(item, Message) else item.address
        is_new = name not in self.compared
        self.compared.add(name)
        return is_new


async def search_context(
    services: Services, caller: Caller, request: SearchRequest
) -> SearchAnswer:
    """Return one page of the matches in the order asked for, newer ones first among equals. While
    the index is not complete, and after TIME_LIMIT_S, `exhaustive` is false."""
    started = time.monotonic()
    services.vectors.require(request.mode)
    ranking = Ranking(request.sort, request.limit, request.cursor, request.mode)
    await import_late(SEARCH)
    search = _Search(
        services, caller, request, _check_query(request.query), ranking, started + TIME_LIMIT_S
    )
    if ranking.weights is not None:
        _use_weights(search.query, ranking.weights)
    summary = await _authorize(services, caller, request.session_id)
    if request.mode is not SearchMode.SEMANTIC:
        await _find_by_words(search, summary)
    starts: Starts = {}
    if request.mode is not SearchMode.FUZZY:
        starts = await _find_by_meaning(search, summary, ranking)
    if search.exhaustive and summary is not None and request.within is Within.MESSAGES:
        search.scanned = summary.message_count
    page, next_cursor = ranking.cut(search.best, search.query.weights)
    return SearchAnswer(
        hits=await _show(search.query, page, starts, request.mode),
        next_cursor=next_cursor,
        scanned=search.scanned,
        exhaustive=search.exhaustive,
        search_time_ms=round((time.monotonic() - started) * 1000, 3),
    )


async def _find_by_words(search: _Search, summary: SessionSummary | None) -> None:
    if search.request.mode is SearchMode.HYBRID:
        # Both lists are as long for each page, so that all pages agree on the ranks.
        search.request = replace(search.request, limit=HYBRID_DEPTH, sort=SortOrder.SCORE)
        search.ranking = search.ranking.without_pages(HYBRID_DEPTH)
    everything = _make_scope(search)
    looked = await _look_up(search, everything)
    progress = Progress() if looked is None else looked.progress
    uncovered = Uncovered(search.services.store, search.caller, progress)
    if looked is None or await uncovered.is_set_back():
        await _compare_all(search, summary)
    else:
        await _compare_with_index(search, looked, uncovered, everything, summary)


async def _find_by_meaning(
    search: _Search, summary: SessionSummary | None, ranking: Ranking
) -> Starts:
    """Find the nearest by meaning; for a hybrid search join them with what was found by words.
    Return where in their texts the nearest windows start."""
    everything = _make_scope(search)
    found = await find_nearest(
        search.services,
        search.caller,
        search.request,
        summary,
        scope=_narrow(search, everything),
        everything=everything,
        limit=_find_depth(search, ranking),
    )
    matches = found.candidates
    if search.request.mode is SearchMode.HYBRID:
        matches = fuse(search.best, matches)
    else:
        search.scanned = found.scanned
    search.exhaustive &= found.is_whole
    search.best = ranking.keep([], matches)
    return found.starts


def _find_depth(search: _Search, ranking: Ranking) -> int:
    """Return how many of the nearest the pages are made of."""
    if search.request.mode is SearchMode.HYBRID:
        return HYBRID_DEPTH
    if search.request.sort is SortOrder.NEWEST:
        return NEAREST
    return min(MAX_NEAREST, ranking.shown + search.request.limit + 1)


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


def _use_weights(query: Query, weights: list[int]) -> None:
    if len(weights) != len(query.weights):
        raise InvalidArgument(
            "cursor belongs to a search with another query.",
            field="cursor",
            suggestion="Repeat the search with the arguments of its first page.",
        )
    query.set_weights(weights)


async def _authorize(
    services: Services, caller: Caller, session_id: str | None
) -> SessionSummary | None:
    """Return the session as the caller sees it. Raises SessionNotFound and PermissionDenied."""
    if session_id is None:
        policy.require_permission(caller, Permission.READ)
        return None
    guard = partial(policy.require_session_read, caller)
    return await services.store.sessions.summarize(session_id, caller, guard)


def _make_scope(search: _Search) -> Scope:
    """Return the scope of everything that the search is about and the caller may see."""
    request = search.request
    keys = caller_keys(search.caller)
    if request.session_id is not None:
        keys = replace(keys, readers=None)  # the session was checked
    return Scope(keys, _KINDS[request.within], request.session_id)


async def _look_up(search: _Search, everything: Scope) -> Looked | None:
    """Ask the index. None if there is none, or if the query has no term to look up."""
    request = search.request
    terms = query_terms(request.query)
    if not terms:
        return None
    wanted = CANDIDATES_A_HIT * request.limit
    if request.sort is SortOrder.SCORE:
        wanted += CANDIDATES_A_HIT * search.ranking.shown
    return await search.services.candidates.look_up(
        CandidateQuery(
            terms=terms,
            scope=_narrow(search, everything),
            limit=min(MAX_CANDIDATES, max(MIN_CANDIDATES, wanted)),
            with_metadata=request.search_metadata,
            min_share=CANDIDATE_SHARE * request.fuzzy_threshold / 100,
            newest_first=request.sort is SortOrder.NEWEST,
        ),
        everything,
    )


def _narrow(search: _Search, scope: Scope) -> Scope:
    """Return what the filters of the search leave of the scope."""
    request = search.request
    return replace(
        scope,
        sender=request.sender,
        visibility=request.visibility,
        start_time=request.start_time,
        end_time=_find_end(request.end_time, search.ranking.newest_us),
    )


def _find_end(end_time: datetime | None, newest_us: int | None) -> datetime | None:
    if newest_us is None:
        return end_time
    newest = to_datetime(newest_us)
    return newest if end_time is None else min(end_time, newest)


async def _compare_with_index(
    search: _Search,
    looked: Looked,
    uncovered: Uncovered,
    everything: Scope,
    summary: SessionSummary | None,
) -> None:
    """Compare the index's candidates, and what the index has not seen yet."""
    if search.ranking.weights is None:
        rarities = {term: rarity(count, looked.count) for term, count in looked.having.items()}
        search.query.weigh(rarities)
    search.exhaustive = looked.progress.is_complete
    search.scanned = looked.count
    if search.request.within is not Within.MEMORY:
        search.scanned += await _compare_uncovered(search, uncovered, summary, MAX_UNCOVERED)
    await _compare_candidates(search, looked)
    if search.request.within is not Within.MESSAGES:
        entries = await _compare_memory(search, await uncovered.list_memory())
        known = await looked.count_entries([entry.address for entry in entries], everything)
        search.scanned += len(entries) - known
    search.exhaustive &= uncovered.is_whole


async def _compare_all(search: _Search, summary: SessionSummary | None) -> None:
    """Compare whatever the caller may see, without an index, while there is time."""
    if search.request.within is not Within.MEMORY:
        uncovered = Uncovered(search.services.store, search.caller, Progress())
        search.scanned = await _compare_uncovered(search, uncovered, summary)
        search.exhaustive &= uncovered.is_whole
    if search.request.within is not Within.MESSAGES:
        pages = list_addresses(search.services, search.caller, search.request.session_id)
        async with aclosing(pages) as listed:  # type: ignore[type-var]  # it is a generator
            async for addresses in listed:
                if time.monotonic() >= search.ends_at:
                    search.exhaustive = False
                    return
                search.scanned += len(await _compare_memory(search, addresses))


async def _compare_uncovered(
    search: _Search, uncovered: Uncovered, summary: SessionSummary | None, limit: int | None = None
) -> int:
    """Compare the messages that the index does not have; return how many the caller sees of them."""
    pages: AsyncIterator[list[Message]] = (
        uncovered.list_everywhere() if summary is None else uncovered.list_session(summary.session)
    )
    visible = 0
    async with aclosing(pages) as listed:  # type: ignore[type-var]  # they are generators
        async for page in listed:
            if limit is not None and visible >= limit:
                search.exhaustive = False
                break
            if not await search.compare(page):
                search.exhaustive = False
                break
            visible += len(page)
    return visible


async def _compare_candidates(search: _Search, looked: Looked) -> None:
    ids = [found.message_id for found in looked.candidates if found.message_id]
    pages = read_messages(search.services.store, search.caller, ids)
    async with aclosing(pages) as read:  # type: ignore[type-var]  # it is a generator
        async for messages in read:
            if not await search.compare(messages):
                search.exhaustive = False
                return
    await _compare_memory(search, [found.address for found in looked.candidates if found.address])


async def _compare_memory(search: _Search, addresses: Iterable[MemoryAddress]) -> list[MemoryEntry]:
    """Compare the entries that are still there and that the caller may read; return them."""
    entries = await read_entries(
        search.services.store, search.caller, search.request.session_id, addresses
    )
    if entries and not await search.compare(entries):
        search.exhaustive = False
    return entries


async def _show(
    query: Query, page: Sequence[Candidate], starts: Starts, mode: SearchMode
) -> list[SearchHit]:
    """Make the hits, with as many messages in full as fit into one answer."""
    ends_at = time.monotonic() + PREVIEW_LIMIT_S
    left = page_budget(len(page))
    hits: list[SearchHit] = []
    for candidate in page:
        item = candidate.message or candidate.memory
        assert item is not None
        text = text_of(item)
        start = starts.get(name_of(item), 0)
        window = text[start : find_window_end(text, start)]
        shown = await run_in_slices(
            preview_in_steps(query, window if mode is SearchMode.SEMANTIC else text), ends_at
        )
        if shown is None or (start and not shown.highlights):
            shown = Preview(window[:PREVIEW_BEGINNING_CHARS] + "…")
        hit = SearchHit(
            candidate.score, shown.text, shown.highlights, candidate.message, candidate.memory
        )
        size = ITEM_OVERHEAD_BYTES  # memory comes without its value
        if hit.message is not None:
            size = weigh_message(hit.message)
            if hits and size > left:
                hit = replace(hit, message=_shorten(hit.message, shown.text), shortened=True)
                size = ITEM_OVERHEAD_BYTES
        left -= size + count_bytes(shown.text)
        hits.append(hit)
    return hits


def _shorten(message: Message, shown: str) -> Message:
    return message._replace(content=shown, metadata={}, recipients=[])
