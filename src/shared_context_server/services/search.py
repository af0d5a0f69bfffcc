"""Search in one session or in all that the caller may see: candidates from the index, scores from the
scorer, and what is near in meaning from the index of vectors.

The index on disk finds what may match and may be seen. What it has not seen yet, usually the messages
of the last second, is compared whole. The store reads the candidates for the caller, so that the
policy is asked once more, and the scorer ranks them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from shared_context_server import policy
from shared_context_server.errors import InvalidArgument
from shared_context_server.models import (
    Caller,
    MemoryAddress,
    Message,
    Permission,
    SessionSummary,
)
from shared_context_server.search_index.progress import Progress
from shared_context_server.search_index.reader import Candidate as IndexCandidate
from shared_context_server.services.candidates import Looked
from shared_context_server.services.context import SearchServices, Services
from shared_context_server.services.found import read_entries, read_messages
from shared_context_server.services.late_imports import SEARCH, import_late
from shared_context_server.services.lookup import find_scope, look_again, look_up, narrow
from shared_context_server.services.meaning import find_nearest
from shared_context_server.services.memory_search import is_wanted, match_entry, search_memory
from shared_context_server.services.messages import weigh_message
from shared_context_server.services.previews import Preview, preview_in_steps
from shared_context_server.services.ranking import Candidate, MemoryHit, Ranking, fuse
from shared_context_server.services.scoring import (
    MAX_QUERY_WORDS,
    Query,
)
from shared_context_server.services.search_answer import SearchAnswer, SearchHit
from shared_context_server.services.search_request import (
    SearchMode,
    SearchRequest,
    SortOrder,
    Within,
)
from shared_context_server.services.search_state import Search
from shared_context_server.services.slices import run_in_slices
from shared_context_server.services.uncovered import Uncovered
from shared_context_server.storage.rules.pages import ITEM_OVERHEAD_BYTES, count_bytes, page_budget

TIME_LIMIT_S = 1.5
PREVIEW_LIMIT_S = 0.5  # for all previews; after that the beginning of a message is its preview
PREVIEW_BEGINNING_CHARS = 160
HYBRID_DEPTH = 100  # how much of both lists a hybrid search joins
NEAREST = 200  # what a semantic search puts in order of time
MAX_NEAREST = 1_000  # how deep the pages of a semantic search go
MAX_UNCOVERED = 2_000  # messages compared whole while the index does not have them yet
# The candidates are compared in parts, because after each the others may be known to be worse.
COMPARED_A_HIT = (1.5, 3.5)  # the ends of the parts, by the number of hits on a page


async def search_context(
    services: Services, caller: Caller, request: SearchRequest
) -> SearchAnswer:
    """Search when it is the caller's turn, in the process for searches if there is one. See
    search_here."""
    services.vectors.require(request.mode)
    async with services.search_turns.take(caller):
        process = services.search_process
        if process is None or request.mode is not SearchMode.FUZZY:
            return await search_here(services, caller, request)
        started = time.monotonic()
        answer = await process.search(caller, request)
        if answer is not None:
            return replace(answer, search_time_ms=_milliseconds_since(started))
        with process.count_time():
            return await search_here(services, caller, request)


async def search_here(
    services: SearchServices, caller: Caller, request: SearchRequest
) -> SearchAnswer:
    """Return one page of the matches in the order asked for, newer ones first among equals. While
    the index is not complete, and after TIME_LIMIT_S, `exhaustive` is false."""
    started = time.monotonic()
    ranking = Ranking(
        request.sort, request.limit, request.cursor, request.mode, request.fingerprint()
    )
    await import_late(SEARCH)
    query = _check_query(request.query)
    # From here: the first search of a process may have waited for the imports.
    search = Search(services, caller, query, request, ranking, time.monotonic() + TIME_LIMIT_S)
    summary = await _authorize(services, caller, request.session_id)
    if request.mode is SearchMode.HYBRID:
        # Both lists are as long for each page, so that all pages agree on the ranks.
        search.request = replace(request, limit=HYBRID_DEPTH, sort=SortOrder.SCORE, cursor=None)
        search.ranking = ranking.without_pages(HYBRID_DEPTH)
    if request.mode is not SearchMode.SEMANTIC:
        await _find_by_words(search, summary)
        ranking.basis = search.ranking.basis
    if request.mode is not SearchMode.FUZZY:
        await _find_by_meaning(search, summary, request, ranking)
    if search.exhaustive and summary is not None and request.within is Within.MESSAGES:
        search.scanned = summary.message_count
    page, next_cursor = ranking.cut(search.best)
    hits, memory = await _show(search, page)
    return SearchAnswer(
        hits=hits,
        memory=memory,
        next_cursor=next_cursor,
        scanned=search.scanned,
        exhaustive=search.exhaustive,
        search_time_ms=_milliseconds_since(started),
    )


def _milliseconds_since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 3)


async def _find_by_words(search: Search, summary: SessionSummary | None) -> None:
    services, caller, within = search.services, search.caller, search.request.within
    looked = await look_up(search)
    uncovered = Uncovered(services.store, caller, Progress() if looked is None else looked.progress)
    if looked is not None and await uncovered.is_set_back():
        looked, uncovered = None, Uncovered(services.store, caller, Progress())
    if search.ranking.basis is None:
        search.ranking.basis = [0]  # of no texts: later pages too count all words as rare
    if within is not Within.MEMORY:
        visible = await _compare_uncovered(search, uncovered, summary, has_index=looked is not None)
        search.scanned += visible
    if within is not Within.MESSAGES:
        if looked is None or not looked.progress.is_complete:
            await _search_all_memory(search)
        else:
            await _compare_uncovered_memory(search, looked, await uncovered.list_memory())
    if looked is not None and not (within is Within.MEMORY and not looked.progress.is_complete):
        search.scanned += looked.count
        await _compare_candidates(search, looked)
    search.exhaustive &= uncovered.is_whole


async def _find_by_meaning(
    search: Search, summary: SessionSummary | None, request: SearchRequest, ranking: Ranking
) -> None:
    """Find the nearest by meaning; for a hybrid search join them with what was found by words."""
    everything = find_scope(search)
    found = await find_nearest(
        search.services,
        search.caller,
        request,
        summary,
        scope=narrow(everything, request),
        everything=everything,
        limit=_find_depth(request),
    )
    matches = found.candidates
    if request.mode is SearchMode.HYBRID:
        matches = fuse(search.best, matches)
    else:
        search.scanned = found.scanned
    search.exhaustive &= found.is_whole
    search.windows = found.windows
    search.best = ranking.keep([], matches)


def _find_depth(request: SearchRequest) -> int:
    """Return how many of the nearest the pages are made of."""
    if request.mode is SearchMode.HYBRID:
        return HYBRID_DEPTH
    if request.sort is SortOrder.NEWEST:
        return NEAREST
    # One more shows whether there is a next page.
    return MAX_NEAREST if request.cursor is not None else request.limit + 1


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


async def _authorize(
    services: SearchServices, caller: Caller, session_id: str | None
) -> SessionSummary | None:
    """Return the session as the caller sees it. Raises SessionNotFound and PermissionDenied."""
    if session_id is None:
        policy.require_permission(caller, Permission.READ)
        return None
    guard = partial(policy.require_session_read, caller)
    return await services.store.sessions.summarize(session_id, caller, guard)


async def _compare_uncovered(
    search: Search, uncovered: Uncovered, summary: SessionSummary | None, *, has_index: bool
) -> int:
    """Compare the messages that the index does not have; return how many the caller sees of them."""
    pages: AsyncGenerator[list[Message]] = (
        uncovered.list_everywhere() if summary is None else uncovered.list_session(summary.session)
    )
    visible = 0
    async with aclosing(pages) as listed:
        async for page in listed:
            if has_index and visible >= MAX_UNCOVERED:
                search.exhaustive = False
                break
            if not await search.compare(page):
                search.exhaustive = False
                break
            visible += len(page)
    return visible


async def _compare_candidates(search: Search, looked: Looked) -> None:
    """Compare the candidates, the most promising ones first, until the others cannot be better."""
    lowest = (search.request.fuzzy_threshold - looked.slack) / 100
    promising = [found for found in looked.candidates if found.estimate >= lowest]
    first, second = (round(share * search.request.limit) for share in COMPARED_A_HIT)
    for part in (promising[:first], promising[first:second]):
        if not await _compare_part(search, looked, part):
            return
    if rest := promising[second:]:
        await _compare_part(search, looked, await look_again(search, looked, rest))


async def _compare_part(search: Search, looked: Looked, part: Sequence[IndexCandidate]) -> bool:
    """Compare those of the candidates that can still be on the page. Return whether there were any,
    and time for them."""
    some = [found for found in part if not search.has_better(100 * found.estimate + looked.slack)]
    ids = [found.message_id for found in some if found.message_id]
    async with aclosing(read_messages(search.services, search.caller, ids)) as pages:
        async for messages in pages:
            if not await search.compare(messages):
                search.exhaustive = False
                return False
    await _compare_memory(search, [found.address for found in some if found.address])
    return bool(some)


async def _compare_uncovered_memory(
    search: Search, looked: Looked, addresses: Sequence[MemoryAddress]
) -> None:
    """Compare the entries that were written since the index was, in place of what it has of them."""
    if not addresses:
        return
    scope = find_scope(search)
    replaced = await search.services.candidates.look_up(
        lambda _: looked.snapshot.count_memory(addresses, scope)
    )
    search.scanned += await _compare_memory(search, addresses) - (replaced or 0)


async def _compare_memory(search: Search, addresses: Iterable[MemoryAddress]) -> int:
    """Compare the entries that are still there and that the caller may read; return how many."""
    request, hits, count = search.request, list[MemoryHit](), 0
    new = [address for address in dict.fromkeys(addresses) if address not in search.known]
    search.known.update(new)
    entries = read_entries(search.services, search.caller, request.session_id, new)
    async with aclosing(entries) as read:
        async for entry in read:
            if time.monotonic() >= search.ends_at:
                search.exhaustive = False
                break
            count += 1
            if is_wanted(entry, request):
                hit = await match_entry(search.query, request, entry, search.ends_at)
                if hit is not None:
                    hits.append(hit)
    search.best = search.ranking.keep(search.best, map(Candidate.of_memory, hits))
    return count


async def _search_all_memory(search: Search) -> None:
    """Compare all memory of the caller, where there is no index."""
    found = await search_memory(
        search.services, search.caller, search.query, search.request, search.ends_at
    )
    search.best = search.ranking.keep(search.best, found.matches)
    search.scanned += found.scanned
    search.exhaustive &= found.exhaustive


async def _show(
    search: Search, page: Sequence[Candidate]
) -> tuple[list[SearchHit], list[MemoryHit]]:
    """Make the hits, with as many messages in full as fit into one answer."""
    ends_at = time.monotonic() + PREVIEW_LIMIT_S
    left = page_budget(len(page))
    hits, memory = list[SearchHit](), list[MemoryHit]()
    for candidate in page:
        if candidate.memory is not None:
            memory.append(await _show_memory(search, candidate.memory, candidate.score, ends_at))
        message = candidate.message
        if message is None:
            continue
        window = search.windows.get(message.id)
        text = message.content
        if window is not None and search.request.mode is SearchMode.SEMANTIC:
            text = window
        matches = search.hits.get(message.id) if text is message.content else None
        preview = preview_in_steps(search.query, text, matches)
        shown = await run_in_slices(preview, ends_at, chars=len(text))
        if window is not None and shown is not None and not shown.highlights:
            shown = await run_in_slices(preview_in_steps(search.query, window), ends_at)
        if shown is None:
            shown = Preview(text[:PREVIEW_BEGINNING_CHARS] + "…")
        hit = SearchHit(message, candidate.score, shown.text, shown.highlights)
        size = weigh_message(message)
        if hits and size > left:
            hit = replace(hit, message=_shorten(message, shown.text), shortened=True)
            size = ITEM_OVERHEAD_BYTES
        left -= size + count_bytes(shown.text)
        hits.append(hit)
    return hits, memory


async def _show_memory(search: Search, hit: MemoryHit, score: float, ends_at: float) -> MemoryHit:
    """Return the hit with its final score; if no word of it matches, with the window nearest in
    meaning."""
    window = search.windows.get(hit.address)
    if window is None or hit.highlights:
        return replace(hit, score=score)
    shown = await run_in_slices(preview_in_steps(search.query, window), ends_at)
    if shown is None:
        shown = Preview(window[:PREVIEW_BEGINNING_CHARS] + "…")
    return replace(hit, score=score, match_preview=shown.text, highlights=shown.highlights)


def _shorten(message: Message, shown: str) -> Message:
    return message._replace(content=shown, metadata={}, recipients=[])
