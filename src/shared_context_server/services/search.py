"""Fuzzy search in messages and memory: candidates from the index, scores from the scorer.

The index on disk finds what may match and may be seen. What it has not seen yet, usually the messages
of the last second, is compared whole. The store reads the candidates for the caller, so that the
policy is asked once more, and the scorer ranks them.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Literal

from shared_context_server import policy
from shared_context_server.errors import (
    InvalidArgument,
    MemoryNotFound,
    SessionNotFound,
)
from shared_context_server.models import (
    Caller,
    MemoryAddress,
    MemoryEntry,
    Message,
    Permission,
    SessionSummary,
    Visibility,
)
from shared_context_server.search_index.audience import caller_keys
from shared_context_server.search_index.documents import Kind
from shared_context_server.search_index.progress import Progress
from shared_context_server.search_index.queries import CandidateQuery, Scope
from shared_context_server.services.batches import Item, Match, score_in_steps
from shared_context_server.services.candidates import Looked
from shared_context_server.services.context import Services
from shared_context_server.services.indexed_documents import memory_text
from shared_context_server.services.late_imports import SEARCH, import_late
from shared_context_server.services.messages import weigh_message
from shared_context_server.services.previews import preview_in_steps
from shared_context_server.services.scoring import MAX_QUERY_WORDS, Query
from shared_context_server.services.slices import run_in_slices
from shared_context_server.services.terms import query_terms
from shared_context_server.services.uncovered import Uncovered
from shared_context_server.steady_time import utc_now
from shared_context_server.storage.rules.pages import ITEM_OVERHEAD_BYTES, count_bytes, page_budget

TIME_LIMIT_S = 1.5
PREVIEW_LIMIT_S = 0.5  # for all previews; after that the beginning of a message is its preview
PREVIEW_BEGINNING_CHARS = 160
MIN_CANDIDATES = 100
CANDIDATES_A_HIT = 4
MAX_UNCOVERED = 2_000  # messages compared whole while the index does not have them yet
# The scorer may give more than the index estimates, so candidates need a part of the threshold only.
CANDIDATE_SHARE = 0.7

Within = Literal["messages", "memory", "all"]
Sort = Literal["score", "newest"]

_KINDS: dict[Within, tuple[Kind, ...]] = {
    "messages": (Kind.MESSAGE,),
    "memory": (Kind.MEMORY,),
    "all": (Kind.MESSAGE, Kind.MEMORY),
}


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """The arguments of a search. `session_id` None: all sessions that the caller may see, and memory
    of the whole server. `visibility` None: all that the caller may see."""

    session_id: str | None
    query: str
    fuzzy_threshold: float
    limit: int
    search_metadata: bool = True
    visibility: Visibility | None = None
    sender: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    within: Within = "messages"
    sort: Sort = "score"


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A match: a message or a memory entry. `shortened`: the answer is full, so it comes without
    metadata and recipients, and with its preview in place of the content."""

    message: Message | None
    score: float
    match_preview: str
    shortened: bool = False
    memory: MemoryEntry | None = None


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The result of a search. `scanned`: the number of visible messages and entries that it covers.
    `exhaustive`: these are all of them."""

    hits: list[SearchHit]
    scanned: int
    exhaustive: bool
    search_time_ms: float


@dataclass(slots=True)
class _Search:
    """A search under way. `best`: the best matches so far, by what identifies them."""

    services: Services
    caller: Caller
    request: SearchRequest
    query: Query
    ends_at: float
    best: dict[int | MemoryAddress, Match] = field(default_factory=dict)
    scanned: int = 0
    exhaustive: bool = True

    async def compare(self, items: Sequence[Item]) -> bool:
        """Score the items and keep the best of all. Return whether there was time for it."""
        wanted = [item for item in items if _is_wanted(item, self.request)]
        matches = await run_in_slices(
            score_in_steps(
                wanted,
                self.query,
                self.request.fuzzy_threshold,
                with_metadata=self.request.search_metadata,
            ),
            self.ends_at,
        )
        if matches is None:
            return False
        for match in matches:
            item = match.item
            self.best[item.id if isinstance(item, Message) else item.address] = match
        if len(self.best) > 2 * self.request.limit:
            self.best = {match.number or _address(match.item): match for match in self.list_best()}
        return True

    def list_best(self) -> list[Match]:
        """Return the matches to show, in their order."""
        if self.request.sort == "newest":
            return heapq.nlargest(
                self.request.limit, self.best.values(), key=lambda match: match[1:3]
            )
        return heapq.nlargest(self.request.limit, self.best.values(), key=lambda match: match[:3])


async def search_context(
    services: Services, caller: Caller, request: SearchRequest
) -> SearchAnswer:
    """Return the best matches, best first, newer ones first among equals. While the index is not
    complete, and after TIME_LIMIT_S, `exhaustive` is false."""
    started = time.monotonic()
    await import_late(SEARCH)
    search = _Search(services, caller, request, _check_query(request.query), started + TIME_LIMIT_S)
    summary = await _authorize(services, caller, request.session_id)
    looked = await _look_up(search)
    uncovered = Uncovered(services.store, caller, Progress() if looked is None else looked.progress)
    if looked is not None and await uncovered.is_set_back():
        looked, uncovered = None, Uncovered(services.store, caller, Progress())
    has_index = looked is not None
    search.exhaustive = uncovered.progress.is_complete or (
        not has_index and request.within == "messages"
    )
    visible_tail = 0
    if request.within != "memory":
        visible_tail = await _compare_uncovered(search, uncovered, summary, has_index=has_index)
    if looked is not None:
        await _compare_candidates(search, looked)
        if request.within != "messages":
            await _compare_memory(search, await uncovered.list_memory())
    search.exhaustive &= uncovered.is_whole
    search.scanned = visible_tail + (0 if looked is None else looked.count)
    if search.exhaustive and summary is not None and request.within == "messages":
        search.scanned = summary.message_count
    return SearchAnswer(
        hits=await _show(services, caller, search.query, search.list_best()),
        scanned=search.scanned,
        exhaustive=search.exhaustive,
        search_time_ms=round((time.monotonic() - started) * 1000, 3),
    )


async def _authorize(
    services: Services, caller: Caller, session_id: str | None
) -> SessionSummary | None:
    """Return the session as the caller sees it. Raises SessionNotFound and PermissionDenied."""
    if session_id is None:
        policy.require_permission(caller, Permission.READ)
        return None
    guard = partial(policy.require_session_read, caller)
    return await services.store.sessions.summarize(session_id, caller, guard)


async def _look_up(search: _Search) -> Looked | None:
    """Ask the index. None if there is none, or if the query has no term to look up."""
    request = search.request
    terms = query_terms(request.query)
    if not terms:
        return None
    keys = caller_keys(search.caller)
    if request.session_id is not None:
        keys = replace(keys, readers=None)  # the session was checked
    everything = Scope(keys, _KINDS[request.within], request.session_id)
    return await search.services.candidates.look_up(
        CandidateQuery(
            terms=terms,
            scope=replace(
                everything,
                sender=request.sender,
                visibility=request.visibility,
                start_time=request.start_time,
                end_time=request.end_time,
            ),
            limit=max(MIN_CANDIDATES, CANDIDATES_A_HIT * request.limit),
            with_metadata=request.search_metadata,
            min_share=CANDIDATE_SHARE * request.fuzzy_threshold / 100,
            newest_first=request.sort == "newest",
        ),
        everything,
    )


async def _compare_uncovered(
    search: _Search, uncovered: Uncovered, summary: SessionSummary | None, *, has_index: bool
) -> int:
    """Compare the messages that the index does not have; return how many the caller sees of them."""
    pages: AsyncIterator[list[Message]] = (
        uncovered.list_everywhere() if summary is None else uncovered.list_session(summary.session)
    )
    visible = 0
    async with aclosing(pages) as listed:  # type: ignore[type-var]  # they are generators
        async for page in listed:
            if has_index and visible >= MAX_UNCOVERED:
                search.exhaustive = False
                break
            if not await search.compare(page):
                search.exhaustive = False
                break
            visible += len(page)
    return visible


async def _compare_candidates(search: _Search, looked: Looked) -> None:
    ids = list(dict.fromkeys(found.message_id for found in looked.candidates if found.message_id))
    while ids:
        messages = await search.services.store.messages.list_by_ids(search.caller, ids)
        seen = [m for m in messages if policy.can_see_message(search.caller, m)]
        if not await search.compare(seen):
            search.exhaustive = False
            return
        # The page may end before the ids do.
        ids = ids[ids.index(messages[-1].id) + 1 :] if messages else []
    await _compare_memory(search, [found.address for found in looked.candidates if found.address])


async def _compare_memory(search: _Search, addresses: Iterable[MemoryAddress]) -> None:
    """Compare the entries that are still there and that the caller may read."""
    entries = []
    for address in dict.fromkeys(addresses):
        is_elsewhere = search.request.session_id not in (None, address.session_id)
        if is_elsewhere or (address.owner is not None and address.owner != search.caller.agent_id):
            continue
        guard = partial(policy.require_session_read, search.caller)
        try:
            entry = await search.services.store.memory.get(
                address, now=utc_now(), guard=None if address.session_id is None else guard
            )
        except (MemoryNotFound, SessionNotFound):
            continue  # removed or expired meanwhile, or not for this caller
        entries.append(entry)
    if entries and not await search.compare(entries):
        search.exhaustive = False


def _address(item: Item) -> MemoryAddress:
    assert isinstance(item, MemoryEntry)
    return item.address


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


def _is_wanted(item: Item, request: SearchRequest) -> bool:
    if isinstance(item, Message):
        sender, at = item.sender, item.timestamp
        is_shown = request.visibility is None or item.visibility is request.visibility
    else:
        sender, at = item.updated_by, item.updated_at
        is_shown = request.visibility is None
    return (
        is_shown
        and (request.sender is None or sender == request.sender)
        and (request.start_time is None or at >= request.start_time)
        and (request.end_time is None or at <= request.end_time)
    )


async def _show(
    services: Services, caller: Caller, query: Query, best: Sequence[Match]
) -> list[SearchHit]:
    """Make the hits, with as many messages in full as fit into one answer."""
    ends_at = time.monotonic() + PREVIEW_LIMIT_S
    left = page_budget(len(best))
    hits: list[SearchHit] = []
    for match in best:
        item = match.item
        text = item.content if isinstance(item, Message) else memory_text(item)
        shown = await run_in_slices(preview_in_steps(query, text), ends_at)
        if shown is None:
            shown = text[:PREVIEW_BEGINNING_CHARS] + "…"
        hit = _make_hit(match, shown)
        size = weigh_message(item) if isinstance(item, Message) else ITEM_OVERHEAD_BYTES
        if not isinstance(item, Message):
            size += count_bytes(text)
        if hits and size > left:
            hit = _make_hit(match._replace(item=_shorten(item, shown)), shown, shortened=True)
            size = ITEM_OVERHEAD_BYTES
        left -= size + count_bytes(shown)
        hits.append(hit)
    return hits


def _make_hit(match: Match, shown: str, *, shortened: bool = False) -> SearchHit:
    item = match.item
    if isinstance(item, Message):
        return SearchHit(item, match.score, shown, shortened)
    return SearchHit(None, match.score, shown, shortened, memory=item)


def _shorten(item: Item, shown: str) -> Item:
    if isinstance(item, Message):
        return item._replace(content=shown, metadata={}, recipients=[])
    return replace(item, value=shown, metadata={})
